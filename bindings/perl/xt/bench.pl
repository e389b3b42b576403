#!/usr/bin/perl
# CPU per request of the accept loops, side by side: FCGI.pm, the FCGI interface of FCGI::Guard, and its own loop. Each
# serves the same requests on a unix socket, hello world, one process, in turns. What is measured is the user and system
# time of the server's process between two looks at /proc, so start-up does not count; and rounds are interleaved, so that
# what else the machine does hits all alike.
#
#   perl -Mblib xt/bench.pl [--requests 20000] [--rounds 5] [--keep-alive] [--connections N] [--only REGEX]
#       [--bench ../../target/release/fcgiguard]
use strict;
use warnings;
use File::Temp 'tempdir';
use Getopt::Long;
use IO::Socket::UNIX;
use POSIX ();

my ($requests, $rounds, $keep, $connections, $only) = (20_000, 5, 0, 0, '');
my $bench = $ENV{FCGIGUARD} || '../../target/release/fcgiguard';
GetOptions(
    'requests=i' => \$requests, 'rounds=i' => \$rounds, 'keep-alive' => \$keep, 'connections=i' => \$connections,
    'bench=s' => \$bench, 'only=s' => \$only,
) or exit 2;
# A kept connection pins an FCGI.pm worker, so that a second one would only wait.
$connections ||= $keep ? 1 : 16;
-x $bench or die "$bench is missing: cargo build --release -p fcgiguard\n";

my $compat = <<'END';
my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \my %env);
while ($request->Accept >= 0) {
    print "Content-Type: text/plain\r\n\r\nHello from $env{SCRIPT_NAME}\n";
    $request->Finish;
}
END
(my $with_env = $compat) =~ s/\\my %env/\\%ENV/;
$with_env =~ s/\$env\{/\$ENV{/;
my @servers = (
    ['FCGI.pm, own hash',       "use FCGI; $compat"],
    ['FCGI.pm, %ENV',           "use FCGI; $with_env"],
    [':fcgi, own hash',         "use FCGI::Guard ':fcgi'; $compat"],
    [':fcgi, %ENV',             "use FCGI::Guard ':fcgi'; $with_env"],
    ['FCGI::Guard->responder',  <<'END'],
use FCGI::Guard;
my $loop = FCGI::Guard->responder;
while (my $request = $loop->accept) {
    my $params = $request->params;
    $request->print("Content-Type: text/plain\r\n\r\nHello from $params->{SCRIPT_NAME}\n");
    $request->finish;
}
END
);
@servers = grep { $_->[0] =~ /$only/ } @servers if length $only;

# What nginx sends beside what the load generator sends by itself.
my @params = map { ('--param', $_) } (
    'SCRIPT_NAME=/app', 'DOCUMENT_URI=/app', 'DOCUMENT_ROOT=/usr/share/nginx/html', 'REQUEST_SCHEME=http',
    'GATEWAY_INTERFACE=CGI/1.1', 'SERVER_SOFTWARE=nginx/1.22.1', 'REMOTE_PORT=40000', 'REDIRECT_STATUS=200',
    'HTTP_HOST=localhost', 'HTTP_USER_AGENT=Mozilla/5.0 (X11; Linux x86_64; rv:115.0) Gecko/20100101 Firefox/115.0',
    'HTTP_ACCEPT=text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', 'HTTP_ACCEPT_LANGUAGE=en-US,en;q=0.5',
    'HTTP_ACCEPT_ENCODING=gzip, deflate', 'HTTP_COOKIE=session=0123456789abcdef0123456789abcdef',
);

# One core for the server, another for the load, where there are two: otherwise their switching is what is measured.
my $pin = system('taskset -c 1 true 2>/dev/null') == 0;
my $dir  = tempdir(CLEANUP => 1);
my @run;
for my $at (0 .. $#servers) {
    my $path   = "$dir/$at.sock";
    my $listen = IO::Socket::UNIX->new(Local => $path, Listen => 511) or die "$path: $!";
    my $pid    = fork // die "fork: $!";
    if (!$pid) {
        open STDIN, '<&', $listen or POSIX::_exit(9);
        my @pin = $pin ? qw(taskset -c 0) : ();
        no warnings 'exec';
        exec { $pin ? 'taskset' : $^X } @pin, $^X, (map { "-I$_" } @INC), '-e', $servers[$at][1];
        POSIX::_exit(9);
    }
    push @run, { name => $servers[$at][0], path => $path, pid => $pid, us => [] };
}
END { kill TERM => $_->{pid} for @run; waitpid $_->{pid}, 0 for @run }

# Nanoseconds that the process has run, as the scheduler counts; its ticks are too coarse for short rounds.
sub cpu_ns {
    my ($pid) = @_;
    open my $in, '<', "/proc/$pid/schedstat" or die "server $pid has ended\n";
    return (split ' ', <$in>)[0];
}

sub load {
    my ($server, $count) = @_;
    my @command = (($pin ? qw(taskset -c 1) : ()), $bench, 'bench', "unix:$server->{path}", '-c', $connections, '-n', $count,
        ($keep ? '-k' : ()), '--expect-body', 'Hello', @params);
    open my $out, '-|', @command or die $!;
    my $text = do { local $/; <$out> };
    close $out or die "lost requests at $server->{name}:\n$text";
    return;
}

load($_, 2000) for @run;
for my $round (1 .. $rounds) {
    for my $server (@run) {
        my $before = cpu_ns($server->{pid});
        load($server, $requests);
        push @{ $server->{us} }, (cpu_ns($server->{pid}) - $before) / $requests / 1000;
    }
}

sub median { my @sorted = sort { $a <=> $b } @_; $sorted[@sorted / 2] }
my $base = median(@{ $run[0]{us} });
printf "%-24s %10s %10s %8s   (%d x %d requests, %s connections)\n", 'CPU us/request', qw(median least ratio), $rounds,
    $requests, $keep ? 'kept' : 'new';
for my $server (@run) {
    my $median = median(@{ $server->{us} });
    my ($least) = sort { $a <=> $b } @{ $server->{us} };
    printf "%-24s %10.1f %10.1f %8.2f\n", $server->{name}, $median, $least, $median / $base;
}
