#!/usr/bin/perl
# A daemon of workers with the three guards that sites used to write by hand: a preload that fails ends the service with a
# reason, modules are checked for what they must do, and a worker that cannot accept any more leaves.
#
#   GUARDED_SOCKET=/run/app.sock GUARDED_WORKERS=5 examples/guarded-workers.pl
#
# HUP loads what `preload` names anew, without a gap; TERM ends after the requests in flight.
use strict;
use warnings;
use FCGI;
use FCGI::Guard::ProcManager;

my $path    = $ENV{GUARDED_SOCKET} || 'guarded.sock';
my $socket  = FCGI::OpenSocket($path, 511) or die "$path: $!\n";
my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%ENV, $socket);

# What the workers serve with: names and the methods that are called on them.
my @application = @ARGV ? @ARGV : ('HTTP::Tiny' => 'new');

my $manager = FCGI::Guard::ProcManager->new({
    n_processes => $ENV{GUARDED_WORKERS} || 5,

    # 1. Loaded in each worker, before it counts as ready. 78 is EX_CONFIG: a supervisor can be told not to restart on it.
    preload      => [@application[grep { !($_ % 2) } 0 .. $#application]],
    give_up_code => 78,

    # 2. A class may be loaded and yet be without its methods, when its file was replaced at that moment.
    verify => [@application],

    # 3. Five accepts in a row that fail: the worker leaves, and another one takes its place.
    accept_errors => 5,

    # Ten failures in 90 s: all workers anew, and no counting for the next 30 s.
    max_failures   => 10,
    failure_window => '90s',
    failure_action => 'restart',
    failure_grace  => '30s',
});
$manager->pm_manage;

my $class = $application[0];
while ($request->Accept >= 0) {
    $manager->pm_pre_dispatch;
    print "Content-Type: text/plain\r\n\r\npid $$ serves with $class\n";
    $request->Finish;
    $manager->pm_post_dispatch;
}
