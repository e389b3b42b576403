use strict;
use warnings;

# As t/03-pool.t, on `:fcgi`.
use FCGI::Guard ':fcgi';
do './t/03-pool.t' or die $@ || $!;
