use strict;
use warnings;
use Test::More;
use Digest::MD5 'md5_hex';
use File::Temp 'tempdir';
use IO::Socket::UNIX;
use POSIX ();
use Time::HiRes qw(sleep time);
use FCGI;
use FCGI::Guard;
use FCGI::Guard::Client;

my $dir    = tempdir(CLEANUP => 1);
my $parent = $$;
my @children;
END { if ($$ == $parent) { kill KILL => @children; waitpid $_, 0 for @children } }

# An FCGI.pm program, as there are many.
sub serve {
    my ($path) = @_;
    my $socket = FCGI::OpenSocket($path, 5);
    my $pid = fork // die $!;
    if ($pid) { push @children, $pid; return $pid }
    my ($in, $out, $err) = (IO::Handle->new, IO::Handle->new, IO::Handle->new);
    my %env;
    my $request = FCGI::Request($in, $out, $err, \%env, $socket);
    while ($request->Accept >= 0) {
        my %query = map { split /=/, $_, 2 } split /&/, $env{QUERY_STRING} // '';
        sleep $query{sleep} if $query{sleep};
        print $err $query{say} if $query{say};
        print $out "Status: ", $query{code} // 200, "\r\nX-Two: one\r\nX-Two: two\r\n\r\n";
        if ($query{megabytes}) {
            print $out chr(65 + $_ % 26) x (1 << 20) for 0 .. $query{megabytes} - 1;
            next;
        }
        my $body = '';
        1 while read $in, $body, 65536, length $body;
        print $out join ' ', $env{REQUEST_METHOD}, length $body, md5_hex($body), unpack('H*', $env{EXTRA} // ''), $env{SCRIPT_NAME}, $query{a} // '';
    }
    POSIX::_exit(0);
}

my $path = "$dir/app.sock";
serve($path);

for my $keep (0, 1) {
    subtest "an FCGI.pm server, keep_conn $keep" => sub {
        my $client = FCGI::Guard::Client->new("unix:$path", timeout => '60s', keep_conn => $keep);
        my $response = $client->request(script => '/srv/page.cgi', query => 'a=b', param => { EXTRA => "\xe4\xff" });
        is $response->status, 200;
        is $response->header('x-two'), 'one';
        is_deeply [$response->header('X-Two')], ['one', 'two'];
        is $response->app_status, undef, 'no status before the end';
        is $response->text, 'GET 0 ' . md5_hex('') . ' e4ff /page.cgi b';
        is $response->app_status, 0;
        is $response->protocol_status, 0;
        is $response->read, undef, 'the end stays the end';
        is $client->is_connected, $keep, 'kept when that was asked for';

        $response = $client->request(query => 'code=404&say=oh-dear');
        is $response->status, 404;
        like $response->text, qr/^GET/;
        is $response->errors, 'oh-dear', 'STDERR is apart';

        my $body = join '', map { pack 'N', $_ } 0 .. (1 << 22) - 1;
        my $sum = md5_hex($body);
        like $client->request(body => $body)->text, qr/^POST 16777216 $sum/, 'a body of 16 MB';

        my $count = 0;
        my @body  = ('one', '', 'two');
        my $two   = md5_hex('onetwo');
        like $client->request(method => 'PUT', body => sub { shift @body })->text, qr/^PUT 6 $two/, 'pieces';
        open my $file, '+>', "$dir/body" or die $!;
        print $file 'x' x 100_000;
        seek $file, 40_000, 0;
        like $client->request(body => $file)->text, qr/^POST 60000 /, 'a file from where it stands';

        my ($size, $wrong) = (0, 0);
        $response = $client->request(query => 'megabytes=32');
        while (defined(my $piece = $response->read)) {
            $wrong++ if $piece =~ /[^A-Z]/;
            $size += length $piece;
        }
        is $size, 32 << 20, 'an answer of 32 MB';
        is $wrong, 0;

        $response = $client->request(query => 'megabytes=64');
        ok length $response->read;
        $response->abort;
        my $stale = $client->request(query => 'megabytes=4');
        like $client->request(body => 'x')->text, qr/^POST 1 /, 'after an abort and an answer that was not read';
        ok !eval { $stale->text; 1 };
        is $@->name, 'wrong_state', 'which cannot be read any more';
    };
}

subtest 'what fails has its name' => sub {
    my $name = sub {
        my ($call) = @_;
        return eval { $call->(); 1 } ? 'nothing' : ref $@ ? $@->name : $@;
    };
    my $client = FCGI::Guard::Client->new($path, timeout => '300ms');
    is $name->(sub { $client->request(query => 'sleep=2') }), 'timeout';
    like $@->message, qr/^receive:/, 'in its phase';
    is $name->(sub { FCGI::Guard::Client->new("$dir/none.sock")->request }), 'no_socket';
    is $name->(sub { FCGI::Guard::Client->new('nonsense') }), 'invalid_address';
    is $name->(sub { FCGI::Guard::Client->new('/x', timeout => 'soon') }), 'invalid_option';
    is $name->(sub { FCGI::Guard::Client->new('/x', nonsense => 1) }), 'unknown_option';
    like $name->(sub { FCGI::Guard::Client->new('/x')->request(nonsense => 1) }), qr/no option nonsense/;
    like $name->(sub { FCGI::Guard::Client->new($path)->request(body => "\x{263a}") }), qr/Wide character/;

    for my $case (['closed', ''], ['bad_version', "HTTP/1.1 400 Bad Request\r\n\r\n"], ['truncated', pack 'CCnnCC a3', 1, 6, 1, 8, 0, 0, 'abc']) {
        my ($want, $bytes) = @$case;
        my $listen = IO::Socket::UNIX->new(Local => "$dir/$want.sock", Listen => 1) or die $!;
        my $pid = fork // die $!;
        if (!$pid) {
            my $connection = $listen->accept;
            sysread $connection, my $in, 65536;
            syswrite $connection, $bytes;
            POSIX::_exit(0);
        }
        push @children, $pid;
        is $name->(sub { FCGI::Guard::Client->new("$dir/$want.sock", timeout => '20s')->request }), $want;
    }
};

subtest 'signal handlers run while a call waits' => sub {
    my $client = FCGI::Guard::Client->new($path, timeout => '20s');
    my $seen   = 0;
    local $SIG{ALRM} = sub { $seen++ };
    Time::HiRes::alarm(0.2);
    like $client->request(query => 'sleep=0.6')->text, qr/^GET/, 'the wait goes on';
    is $seen, 1;
    local $SIG{ALRM} = sub { die "enough\n" };
    my $begun = time;
    Time::HiRes::alarm(0.2);
    ok !eval { $client->request(query => 'sleep=9'); 1 };
    is $@, "enough\n", 'one that dies ends it';
    cmp_ok time - $begun, '<', 8;
};

done_testing;
