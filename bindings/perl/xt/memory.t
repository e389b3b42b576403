# t/08-memory.t at length: 10^5 requests of each kind.
use strict;
use warnings;
$ENV{FCGIGUARD_REQUESTS} ||= 100_000;
do './t/08-memory.t' or die $@ || $!;
