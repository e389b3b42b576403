use strict;
use warnings;
use Test::More;
use File::Temp 'tempdir';
use IO::Socket::INET;
use FCGI;
use FCGI::Guard 'probe';

my $dir = tempdir(CLEANUP => 1);

subtest 'nothing there' => sub {
    my $report = probe("unix:$dir/none.sock", timeout => '1s');
    is $report->verdict, 'no_socket';
    is $report->outcome, 'dead';
    is $report->exit_code, 2;
    like $report->line, qr/no_socket/;
    ok !$report->is_alive;
};

subtest 'a real FCGI.pm server' => sub {
    my $path = "$dir/app.sock";
    my $pid  = serve($path);
    my $report = probe($path, timeout => '5s', method => 'get-values');
    is $report->verdict, 'healthy', $report->line;
    $report = probe($path, timeout => '5s', method => 'request', param => { REQUEST_METHOD => 'GET' }, expect_body => 'hello');
    is $report->verdict, 'healthy', $report->line;
    is $report->http_status, 200;
    kill TERM => $pid;
    waitpid $pid, 0;
};

subtest 'an HTTP server' => sub {
    my $listen = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die $!;
    my $pid = fork // die $!;
    if (!$pid) {
        while (my $c = $listen->accept) { sysread $c, my $in, 100; syswrite $c, "HTTP/1.1 400 Bad Request\r\n\r\n"; close $c }
        exit;
    }
    is probe('127.0.0.1:' . $listen->sockport, timeout => '3s')->verdict, 'not_fastcgi';
    kill KILL => $pid;
    waitpid $pid, 0;
};

subtest 'wrong use dies with a typed error' => sub {
    ok !eval { probe('not an address'); 1 };
    isa_ok $@, 'FCGI::Guard::Error';
    is $@->name, 'invalid_address';
    is $@->code, -201;
    ok !eval { probe('/x', nonsense => 1); 1 };
    is $@->name, 'unknown_option', "$@";
    my @place = (__FILE__, __LINE__ + 1);
    ok !eval { FCGI::Guard::Pool->new({ workers => 'many', max_memory => '12Q', max_request => 5 }) };
    like "$@", qr/max_memory.*max_request: .*did you mean max_requests.*workers: "many"/, 'all that is wrong at once';
    is_deeply [$@->file, $@->line], \@place, 'where the program called';
    like "$@", qr/ at \Q$place[0]\E line $place[1]\.\n\z/;
    for my $wrong (sub { FCGI::Guard::Pool->new('workers') }, sub { FCGI::Guard->responder('listen') }, sub { probe('/x', 'timeout') }) {
        ok !eval { $wrong->(); 1 };
        like "$@", qr/not pairs of name and value.* at \Q$place[0]\E /;
    }
    ok !eval { probe('/x', param => 'A=b'); 1 };
    like $@, qr/reference to a hash at \Q$place[0]\E/;
    ok !eval { FCGI::Guard->responder(head_timeout => 'soon') };
    like "$@", qr/head_timeout: "soon" is not a duration/;
};

sub serve {
    my ($path) = @_;
    my $socket = FCGI::OpenSocket($path, 5);
    my $pid = fork // die $!;
    return $pid if $pid;
    my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%ENV, $socket);
    while ($request->Accept >= 0) { print "Content-Type: text/plain\r\n\r\nhello\n" }
    POSIX::_exit(0);
}

done_testing;
