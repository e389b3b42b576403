use strict;
use warnings;
use Test::More;
use FCGI::Guard;

# The shared vectors: each fed whole, byte by byte, at every split, and with trailing bytes.
my ($file) = grep { -e } 't/vectors.txt', '../../tests/vectors/vectors.txt';
plan skip_all => 'the shared vectors are not in this archive' unless $file;
open my $in, '<', $file or die "$file: $!";
require './t/lib/VectorRunner.pm';
my $count = VectorRunner::run($in);
is $count->{failed}, 0, 'every vector in every way of feeding';
diag VectorRunner::line($count);
done_testing;
