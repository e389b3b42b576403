package FCGI::Guard::ProcManager::Constrained;

# Limits of requests and of memory. Each works alone; memory is also looked at by the worker itself every so many
# requests, when that is asked for.
use strict;
use warnings;
use parent 'FCGI::Guard::ProcManager';

our $VERSION = '0.001000';

my %ENVIRONMENT = (
    max_requests           => 'PM_MAX_REQUESTS',
    sizecheck_num_requests => 'PM_SIZECHECK_NUM_REQUESTS',
    max_size               => 'PM_MAX_SIZE',
);

sub new {
    my ($proto, @init) = @_;
    my $self = $proto->SUPER::new(@init);
    for my $key (keys %ENVIRONMENT) {
        $self->{$key} = $ENV{ $ENVIRONMENT{$key} } || 0 if !defined $self->{$key};
    }
    return $self;
}

for my $key (keys %ENVIRONMENT) {
    no strict 'refs';
    *{$key} = sub { my ($this, @value) = @_; $this->pm_parameter($key, @value) };
}

sub _pool_options {
    my ($this) = @_;
    my %option = $this->SUPER::_pool_options;
    $option{max_memory} = int($this->{max_size} * 1024) if $this->{max_size} && !defined $option{max_memory};
    return %option;
}

sub _counts_itself {
    my ($this) = @_;
    return 1 if $this->{sizecheck_num_requests} && $this->{max_size};
    return ($this->{max_requests} || 0) != ($this->_guard->{pool_max} || 0) ? 1 : 0;
}

sub _limit_reached {
    my ($this) = @_;
    my $why = $this->SUPER::_limit_reached;
    return $why if defined $why;
    my ($every, $max) = @$this{qw(sizecheck_num_requests max_size)};
    return undef if !$every || !$max;    ## no critic
    my $guard = $this->_guard;
    return undef if ++$guard->{unchecked} < $every;    ## no critic
    $guard->{unchecked} = 0;
    my $size = $this->_size;
    return undef if !defined $size || $size <= $max;    ## no critic
    return "safe exit due to memory limits exceeded after $guard->{served} requests";
}

# Of this process in kB: the proportional share where the kernel tells it, else the resident set.
sub _size {
    my ($this) = @_;
    my $pss = ($this->{memory_kind} // 'pss') eq 'pss';
    for my $source ($pss ? ['smaps_rollup', qr/^Pss:\s+(\d+)/m] : (), ['status', qr/^VmRSS:\s+(\d+)/m]) {
        open my $in, '<', "/proc/self/$source->[0]" or next;
        local $/;
        return $1 if (<$in> // '') =~ $source->[1];
    }
    return;
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::ProcManager::Constrained - workers with limits of requests and memory

=head1 SYNOPSIS

    $ENV{PM_MAX_REQUESTS} = 1000;
    $ENV{PM_MAX_SIZE}     = 200_000;    # kB
    my $manager = FCGI::Guard::ProcManager::Constrained->new({ n_processes => 5 });

=head1 DESCRIPTION

=over

=item max_requests, C<PM_MAX_REQUESTS>

A worker is replaced after so many requests.

=item max_size, C<PM_MAX_SIZE>

A worker that uses more kilobytes (2^10 bytes) is replaced. The manager looks every C<sample_interval>.

=item sizecheck_num_requests, C<PM_SIZECHECK_NUM_REQUESTS>

The worker itself looks too, after every so many requests, and leaves at once when it is above.

=back

Keys of C<new> go before the environment. Each is also an accessor.

=head1 DIFFERENCES FROM FCGI::ProcManager::Constrained

C<max_size> works alone: without C<max_requests> and without C<sizecheck_num_requests>. No further module is needed.
Size is the proportional share of memory (pages that workers share are divided among them), or the resident set with
C<< memory_kind => 'rss' >>. C<max_requests> is spread as in L<FCGI::Guard::ProcManager::MaxRequests>.

=cut
