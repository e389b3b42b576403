use strict;
use warnings;

# As t/14-procmanager-programs.t, with the programs on `:fcgi`: the worker's wait and its line are the library's own.
$ENV{TEST_NATIVE} = 1;
do './t/14-procmanager-programs.t' or die $@ || $!;
