package FCGI::Guard::ProcManager::MaxSize;

# A cap on a worker's memory, in megabytes. The manager measures; it works with nothing else set.
use strict;
use warnings;
use parent 'FCGI::Guard::ProcManager';

our $VERSION = '0.001000';

sub max_size {
    my ($this, @value) = @_;
    return $this->pm_parameter('max_size', @value);
}

sub _pool_options {
    my ($this) = @_;
    my %option = $this->SUPER::_pool_options;
    $option{max_memory} = int($this->{max_size} * 1024 * 1024) if $this->{max_size} && !defined $option{max_memory};
    return %option;
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::ProcManager::MaxSize - workers that are replaced when they have grown too large

=head1 SYNOPSIS

    my $manager = FCGI::Guard::ProcManager::MaxSize->new({ n_processes => 5, max_size => 200 });

=head1 DESCRIPTION

=over

=item max_size

Is in megabytes of memory (2^20 bytes). It is the pool's C<max_memory>: the manager measures each worker's
proportional share (C<< memory_kind => 'rss' >>: its resident set) every C<sample_interval>, and a worker that is
above it C<memory_samples> times in a row is replaced, once its replacement is ready and its request is done.

=back

=head1 DIFFERENCES FROM FCGI::ProcManager::MaxSize

The manager measures, also while a worker is busy or idle; a worker does not need to end a request to be noticed.

=cut
