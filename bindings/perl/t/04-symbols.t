use strict;
use warnings;
use Test::More;

# A Rust symbol in the dynamic table of a loaded module could meet another library's. Only what perl asks for is there.
my ($file) = grep { -e } map { "$_/auto/FCGI/Guard/Guard.so" } @INC;
ok defined $file, 'Guard.so is found' or BAIL_OUT('Guard.so is not built');
my $table = `nm -D --defined-only $file 2>/dev/null`;
plan skip_all => 'there is no nm' if $? == -1 || $? >> 8 == 127;
is_deeply [map { (split)[-1] } split /\n/, $table], ['boot_FCGI__Guard'], 'nothing is exported but the boot symbol';
done_testing;
