package FCGI::Guard::ProcManager::MaxRequests;

# A worker that is replaced after so many requests. The workers' own limits are spread below the number, so that they are not all
# replaced at once.
use strict;
use warnings;
use parent 'FCGI::Guard::ProcManager';

our $VERSION = '0.001000';

sub new {
    my ($proto, @init) = @_;
    my $self = $proto->SUPER::new(@init);
    $self->{max_requests} = $ENV{PM_MAX_REQUESTS} || 0 if !defined $self->{max_requests};
    return $self;
}

sub max_requests {
    my ($this, @value) = @_;
    return $this->pm_parameter('max_requests', @value);
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::ProcManager::MaxRequests - workers that are replaced after a number of requests

=head1 SYNOPSIS

    my $manager = FCGI::Guard::ProcManager::MaxRequests->new({ n_processes => 10, max_requests => 1000 });
    $manager->pm_manage;
    while (my $cgi = CGI::Fast->new) {
        $manager->pm_pre_dispatch;
        ...
        $manager->pm_post_dispatch;
    }

=head1 DESCRIPTION

L<FCGI::Guard::ProcManager> with its C<max_requests> also taken from the environment variable C<PM_MAX_REQUESTS>.

=over

=item max_requests

Reads and sets it, in a worker too.

=back

=head1 DIFFERENCES FROM FCGI::ProcManager::MaxRequests

At the number, the manager starts a replacement; the worker leaves when that is ready, and serves the few requests
that come until then. The C<safe exit> line has the number that it has served. A number that is set in the worker
itself is exact, and leaves a gap until a successor is there.

Above ten requests, each worker's own limit lies up to C<jitter> percent (10) below the number, so that workers that
were started together are not replaced together. C<< jitter => 0 >> switches that off.

=cut
