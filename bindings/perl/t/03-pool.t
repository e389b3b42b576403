use strict;
use warnings;
use Test::More;
use File::Temp 'tempdir';
use FCGI;
use IO::Socket::UNIX;
use POSIX ();
use Time::HiRes qw(sleep time);
use FCGI::Guard 'probe';

# A fork-mode pool around an FCGI.pm loop, in a process of its own.
my $dir  = tempdir(CLEANUP => 1);
my $path = "$dir/pool.sock";
my $manager = fork // die $!;
if (!$manager) {
    open STDERR, '>', "$dir/log" or die $!;
    my $pool = FCGI::Guard::Pool->new(listen => "unix:$path", workers => 3);
    $pool->manage or POSIX::_exit($pool->exit_code);
    my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%ENV, $pool->socket);
    my $served = 0;
    while ($pool->accept($request)) {
        print "Content-Type: text/plain\r\n\r\npid $$\n";
        # Who does not finish a request has it finished by the next accept, without waiting for another client.
        $request->Finish if $served++ % 2;
    }
    POSIX::_exit(0);
}

sub log_text { open my $in, '<', "$dir/log" or return ''; local $/; <$in> // '' }

sub wait_for {
    my ($what, $test) = @_;
    my $end = time + 15;
    while (time < $end) { return ok 1, $what if $test->(); sleep 0.02 }
    fail $what;
    diag log_text();
}

# The pid of whoever answers: one request by hand, so that nothing of ours is between.
sub ask {
    my $c = IO::Socket::UNIX->new(Peer => $path) or return;
    my $pair = pack('CC', 14, 3) . 'REQUEST_METHODGET';
    syswrite $c, pack('CCnnCC', 1, 1, 1, 8, 0, 0) . pack('nC x5', 1, 0) . pack('CCnnCC', 1, 4, 1, length $pair, 0, 0) . $pair
        . pack('CCnnCC', 1, 4, 1, 0, 0, 0) . pack('CCnnCC', 1, 5, 1, 0, 0, 0);
    my $all = '';
    while (sysread $c, my $piece, 4096) { $all .= $piece }
    return $all =~ /pid (\d+)/ ? $1 : undef;
}

wait_for('the pool comes up', sub { -S $path && ask() });
is probe($path, timeout => '5s')->verdict, 'healthy';

my $victim = ask();
kill KILL => $victim;
wait_for('a killed worker is replaced', sub { log_text() =~ /^pool\[1\.$victim\]: was ended by signal 9/m && (() = log_text() =~ /: ready after/g) >= 4 });
my @pids = map { ask() } 1 .. 30;
is scalar(grep({ !defined || $_ == $victim } @pids)), 0, 'nothing is lost after it';

my %old = map { $_ => 1 } @pids;
kill HUP => $manager;
my $lost = 0;
for (1 .. 200) { defined ask() or $lost++ }
is $lost, 0, 'reload loses nothing';
wait_for('the new generation serves', sub { log_text() =~ /reload done/ && !grep { $old{ ask() // 0 } } 1 .. 10 });

kill TERM => $manager;
waitpid $manager, 0;
is $?, 0, 'TERM ends it gracefully';
ok !-e $path, 'and takes the socket file along';

my $gone = FCGI::Guard::Pool->new(listen => "unix:$dir/no/folder.sock");
ok !eval { $gone->open; 1 };
is $@->name, 'socket_folder', "$@";

done_testing;
