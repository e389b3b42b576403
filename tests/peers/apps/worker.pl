#!/usr/bin/perl
# One FCGI.pm program for every row: alone (descriptor 0 or Server::Starter's port) under a manager, or with `pm ADDRESS WORKERS`
# as FCGI::ProcManager's own program. What goes wrong is chosen by the environment:
#   STARTS file   a byte is appended at each start of a worker
#   FAIL file     while it exists a worker exits at once with FAIL_CODE (1); its content, if any, is how long it lives first, in ms
#   CODE file     read when the program is loaded (the parent in ProcManager), told in each answer
#   LOAD_MS       how long loading takes;   LEAK kB kept a request;   LOOP=plain: no pre_dispatch and post_dispatch
#   FLAGS=1       FAIL_ACCEPT_ON_INTR;   PM_CLASS the class;   OWN_TERM=1: a TERM handler that sets a flag
use strict;
use warnings;
use FCGI;
use Time::HiRes qw(sleep time);

my ($mode, $address, $workers) = @ARGV;
my $pm;
my $socket = 0;
if (($ENV{SERVER_STARTER_PORT} // '') =~ /=(\d+)/ && !defined $mode) { $socket = $1 }
if (defined $mode) {
    $socket = FCGI::OpenSocket($address, 512);
    my $class = $ENV{PM_CLASS} || 'FCGI::ProcManager';
    eval "require $class" or die $@;
    $pm = $class->new({n_processes => $workers, die_timeout => $ENV{DIE_TIMEOUT} || 60});
}

sub load {
    sleep($ENV{LOAD_MS} / 1000) if $ENV{LOAD_MS};
    return '' unless $ENV{CODE};
    open my $in, '<', $ENV{CODE} or die "$ENV{CODE}: $!";
    my $text = <$in> // '';
    chomp $text;
    return $text;
}

my %env;
my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%env, $socket, $ENV{FLAGS} ? FCGI::FAIL_ACCEPT_ON_INTR() : 0);
my $code = load();
$pm->pm_manage() if $pm;
if ($ENV{STARTS}) {
    open my $out, '>>', $ENV{STARTS};
    syswrite $out, '.';
}
my $dies_at;
if ($ENV{FAIL} && open my $in, '<', $ENV{FAIL}) {
    my $ms = <$in> // 0;
    exit($ENV{FAIL_CODE} // 1) unless $ms > 0;
    # By the signal itself: a Perl handler would wait for libfcgi's accept to return.
    $SIG{ALRM} = 'DEFAULT';
    Time::HiRes::alarm($ms / 1000);
}
my $stop = 0;
$SIG{TERM} = sub { $stop = 1 } if $ENV{OWN_TERM};
my $paired = $pm && ($ENV{LOOP} // '') ne 'plain';
my @kept;
while (!$stop && $request->Accept() >= 0) {
    $pm->pm_pre_dispatch() if $paired;
    my $query = $env{QUERY_STRING} // '';
    sleep($1 / 1000) if $query =~ /sleep=(\d+)/;
    if ($query =~ /hang=1/) { $SIG{TERM} = 'IGNORE'; sleep 1 while 1 }
    push @kept, 'x' x (1024 * $ENV{LEAK}) if $ENV{LEAK};
    my $length = $env{CONTENT_LENGTH} || 0;
    my $got = 0;
    while ($got < $length and my $n = read STDIN, my $piece, 65536) { $got += $n }
    print "Content-Type: text/plain\r\nX-Worker: $$\r\nX-Code: $code\r\n\r\npid=$$ code=$code body=$got\n";
    $request->Finish();
    $pm->pm_post_dispatch() if $paired;
}
