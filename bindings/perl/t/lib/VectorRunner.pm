package VectorRunner;

use strict;
use warnings;
use FCGI::Guard;

# Feeds every vector whole, byte by byte, at every split, and with trailing bytes; returns the counts.
sub run {
    my ($in) = @_;
    my %count = (vectors => 0, runs => 0, failed => 0);
    while (my $line = <$in>) {
        chomp $line;
        my ($name, $side, $input, $trailing, $events, $output, $error) = map { $_ eq '-' ? '' : $_ } split /\t/, $line;
        $events =~ s/ \| /\n/g;
        my $want = join "\0", $events, $output, $error;
        $input    = pack 'H*', $input;
        $trailing = pack 'H*', $trailing;
        $count{vectors}++;
        my $try = sub {
            my ($how, @pieces) = @_;
            my $trace = FCGI::Guard::Trace::new_handle($side);
            $trace->feed($_) for @pieces;
            $trace->finish;
            my $found = join "\0", $trace->events, $trace->output, $trace->error;
            $count{runs}++;
            return if $found eq $want;
            $count{failed}++;
            Test::More::diag("$name, $how:\n  found $found\n  want  $want");
        };
        $try->('whole', $input);
        $try->('byte by byte', split //, $input);
        $try->("split at $_", substr($input, 0, $_), substr($input, $_)) for 1 .. length($input) - 1;
        $try->('with trailing bytes', $input . $trailing) if length $trailing;
    }
    return \%count;
}

sub line { my ($c) = @_; "vectors: $c->{vectors} vectors, $c->{runs} runs, $c->{failed} failed" }

1;
