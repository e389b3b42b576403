#!/usr/bin/perl
# CPU of a managed request loop, side by side: FCGI::ProcManager on FCGI.pm, FCGI::Guard::ProcManager on FCGI.pm and on `:fcgi`.
# One worker each, hello world on a unix socket, in turns; what is measured is the worker's own user and system time.
#
#   perl -Mblib xt/bench-procmanager.pl [--requests 20000] [--rounds 3] [--bench ../../target/release/fcgiguard]
use strict;
use warnings;
use File::Temp 'tempdir';
use Getopt::Long;
use POSIX ();

my ($requests, $rounds, $bench) = (20_000, 3, $ENV{FCGIGUARD} || '../../target/release/fcgiguard');
GetOptions('requests=i' => \$requests, 'rounds=i' => \$rounds, 'bench=s' => \$bench) or exit 2;
-x $bench or die "$bench is missing: cargo build --release -p fcgiguard\n";

my $dir = tempdir(CLEANUP => 1);
my @servers = (
    ['FCGI::ProcManager, FCGI.pm',        '',                                   'FCGI::ProcManager'],
    ['FCGI::Guard::ProcManager, FCGI.pm', '',                                   'FCGI::Guard::ProcManager'],
    ['FCGI::Guard::ProcManager, :fcgi',   "use FCGI::Guard ':fcgi';",           'FCGI::Guard::ProcManager'],
    ['the same, max_requests', "use FCGI::Guard ':fcgi';", 'FCGI::Guard::ProcManager', 'max_requests => 1_000_000'],
);
my %ticks;
for my $round (1 .. $rounds) {
    for my $at (0 .. $#servers) {
        my ($name, $first, $class, $more) = @{ $servers[$at] };
        $more //= '';
        my $path = "$dir/$round-$at.sock";
        my $pid = fork // die $!;
        if (!$pid) {
            open STDERR, '>>', "$dir/log";
            exec $^X, (map { "-I$_" } grep { !ref } @INC), '-e', <<"END" or POSIX::_exit(98);
use strict; use warnings; $first use FCGI; use $class;
my \$request = FCGI::Request(\\*STDIN, \\*STDOUT, \\*STDERR, \\%ENV, FCGI::OpenSocket('$path', 511), FCGI::FAIL_ACCEPT_ON_INTR());
my \$pm = $class->new({ n_processes => 1, $more });
\$pm->pm_manage;
while (\$request->Accept >= 0) {
    \$pm->pm_pre_dispatch;
    print "Content-Type: text/plain\\r\\n\\r\\nHello from \$ENV{SCRIPT_NAME}\\n";
    \$request->Finish;
    \$pm->pm_post_dispatch;
}
END
        }
        my $worker;
        for (1 .. 500) {
            select undef, undef, undef, 0.02;
            next if !-S $path;
            open my $in, '<', "/proc/$pid/task/$pid/children" or next;
            ($worker) = split ' ', <$in> // '' and last;
        }
        $worker or die "$name does not start\n", `cat $dir/log`;
        load($path, 500);
        my $before = used($worker);
        load($path, $requests);
        push @{ $ticks{$name} }, used($worker) - $before;
        kill TERM => $pid;
        waitpid $pid, 0;
    }
}
for my $server (@servers) {
    my @all = sort { $a <=> $b } @{ $ticks{ $server->[0] } };
    printf "%-36s %5d ticks for %d requests (%.1f us each; all: %s)\n", $server->[0], $all[$#all / 2], $requests,
        $all[$#all / 2] * 1e6 / POSIX::sysconf(POSIX::_SC_CLK_TCK()) / $requests, "@all";
}

sub load {
    my ($path, $count) = @_;
    my $params = join ' ', map { "--param $_" } qw(SCRIPT_NAME=/app HTTP_HOST=localhost HTTP_COOKIE=session=0123456789abcdef);
    my $out = `$bench bench 'unix:$path' --requests $count --connections 4 $params 2>&1`;
    die $out if $?;
    return;
}

# User and system time, in ticks.
sub used {
    my ($pid) = @_;
    open my $in, '<', "/proc/$pid/stat" or die "worker $pid is gone\n";
    my ($rest) = <$in> =~ /\) (.*)/;
    return (split ' ', $rest)[11] + (split ' ', $rest)[12];
}
