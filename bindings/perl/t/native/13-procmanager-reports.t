use strict;
use warnings;

# As t/13-procmanager-reports.t, with the programs on `:fcgi`: the worker's wait and its line are the library's own.
$ENV{TEST_NATIVE} = 1;
do './t/13-procmanager-reports.t' or die $@ || $!;
