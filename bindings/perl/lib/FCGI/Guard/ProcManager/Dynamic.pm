package FCGI::Guard::ProcManager::Dynamic;

# A number of workers that follows the load, with the pool's own sizing: workers above what is needed are asked to leave
# between two requests, never killed.
use strict;
use warnings;
use parent 'FCGI::Guard::ProcManager';

our $VERSION = '0.001000';

my %DEFAULTS = (max_nproc => 8, delta_nproc => 5, delta_time => 5, max_requests => 0);

sub new {
    my ($proto, @init) = @_;
    my $self = $proto->SUPER::new(@init);
    for my $key (keys %DEFAULTS) {
        $self->{$key} = $DEFAULTS{$key} if !defined $self->{$key};
    }
    return $self;
}

for my $key (qw(min_nproc max_requests), keys %DEFAULTS) {
    no strict 'refs';
    no warnings 'redefine';
    *{$key} = sub { my ($this, @value) = @_; $this->pm_parameter($key, @value) };
}

sub _pool_options {
    my ($this) = @_;
    my %option = $this->SUPER::_pool_options;
    my $first = $this->{n_processes};
    my $min = $this->{min_nproc} || $first;
    my $max = $this->{max_nproc} > $min ? $this->{max_nproc} : $min;
    $first = $first < $min ? $min : $first > $max ? $max : $first;
    my %dynamic = (
        sizing       => 'dynamic',
        workers      => $first,
        min_workers  => $min,
        max_workers  => $max,
        min_spare    => 1,
        max_spare    => $this->{delta_nproc} > 0 ? $this->{delta_nproc} : 1,
        idle_timeout => $this->{delta_time},
    );
    # An option of the pool that was given by its own name goes first.
    for my $name (keys %dynamic) {
        $option{$name} = $dynamic{$name} if $name eq 'workers' || !defined $this->{$name};
    }
    return %option;
}

# For the condition of the request loop: true until this worker should leave.
sub pm_loop {
    my ($this) = @_;
    my $guard = $this->_guard;
    if ($guard->{open}) {
        my $why = $this->_request_done;
        $guard->{leave} = $why if defined $why;
    }
    return 1 if !defined $guard->{leave} && !$this->_asked_to_leave;
    $this->pm_notify($guard->{leave}) if defined $guard->{leave};
    return 0;
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::ProcManager::Dynamic - a number of workers that follows the load

=head1 SYNOPSIS

    my $manager = FCGI::Guard::ProcManager::Dynamic->new({
        n_processes => 8, min_nproc => 2, max_nproc => 32, delta_nproc => 4, delta_time => 5, max_requests => 1000,
    });
    $manager->pm_manage;
    while ($manager->pm_loop && (my $cgi = CGI::Fast->new)) {
        $manager->pm_pre_dispatch;
        ...
        $manager->pm_post_dispatch;
    }

=head1 DESCRIPTION

=over

=item n_processes

Workers at the start.

=item min_nproc (n_processes), max_nproc (8)

Fewest and most workers.

=item delta_nproc (5)

At most so many idle workers are kept above what the load needs: the pool's C<max_spare>.

=item delta_time (5)

Seconds for which a worker above that must have been idle before it is asked to leave: the pool's C<idle_timeout>.

=item max_requests

As in L<FCGI::Guard::ProcManager::MaxRequests>; 0 is never.

=item pm_loop

False when this worker should leave. It belongs into the condition of the request loop; a loop without it works too.

=back

=head1 DIFFERENCES FROM FCGI::ProcManager::Dynamic

The pool grows as soon as no worker is idle or somebody waits in the listen queue, by as many as the pool's sizing
allows at a time, not by C<delta_nproc> every C<delta_time>. Workers that are not needed are asked to leave and are
not killed. No shared memory segment or semaphore is left behind.

=cut
