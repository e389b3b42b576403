package FCGI::Guard::Pool;

use strict;
use warnings;
use Carp ();
use POSIX ();
use FCGI::Guard::Image ();

our $VERSION = '0.001000';

# What step() returns.
use constant { IDLE => 0, EVENTS => 1, WORKER => 2, ENDED => 3 };

# A handle is a scalar (T_PTROBJ), so what Perl must remember of a pool stands beside it, by address.
my %side;

sub new {
    my ($class, @given) = @_;
    my %option = FCGI::Guard::Error::_options('a pool', @given);
    my $self = FCGI::Guard::Pool::new_handle();
    bless $self, $class;
    $side{$$self} = { log => delete $option{log}, fd => delete $option{fd} };
    my $image = exists $option{image} ? delete $option{image} : [FCGI::Guard::Image->command];
    $self->set_image(@$image) if ref $image && @$image;
    $self->configure(%option);
    $self->add_listener($side{$$self}{fd}) if defined $side{$$self}{fd};
    return $self;
}

sub configure {
    my ($self, @given) = @_;
    my %option = FCGI::Guard::Error::_options('a pool', @given);
    FCGI::Guard::Error::_each(sub {
        my $value = $option{ $_[0] };
        $self->set($_[0], ref $value eq 'ARRAY' ? join(',', @$value) : $value) if defined $value;
    }, sort keys %option);
    return $self;
}

my %SIGNALS = map { $_ => 1 } qw(TERM INT HUP QUIT USR1 USR2 TTIN TTOU);

# Runs the pool. True in each worker; false in the manager, once the pool has ended.
sub manage {
    my ($self) = @_;
    $self->open;
    my $listen = $self->get('listen');
    print STDERR $self->get('name'), ": listening on $listen\n" if !defined $side{$$self}{log} && defined $listen && length $listen;
    my %number;
    @number{ split ' ', $Config::Config{sig_name} } = split ' ', $Config::Config{sig_num};
    my @pending;
    my $in_worker = 0;
    {
        # Perl's own handlers, for as long as the loop runs: step() works between them, and `local` gives them back.
        local @SIG{ keys %SIGNALS } = map { my $n = $number{$_}; sub { push @pending, $n } } keys %SIGNALS;
        while (1) {
            my $step = $self->step(@pending ? 0 : $self->poll_ms);
            $self->signal(shift @pending) while @pending;
            if ($step == WORKER) {
                $in_worker = 1;
                last;
            }
            while (my $event = $self->next_event) {
                $self->notice($event);
            }
            last if $step == ENDED;
        }
    }
    return 0 unless $in_worker;
    my $worker = $self->worker;
    $side{$$self}{worker} = $worker;
    my $leave = sub { $side{$$self}{leaving} = 1 };
    $SIG{TERM} = $leave;
    $SIG{HUP}  = $leave;
    return 1;
}

# How long one step may wait: perl delivers signals between steps, and one that falls between its check and the wait
# would otherwise be seen only with the next event.
sub poll_ms { 1000 }

sub notice {
    my ($self, $event) = @_;
    my $log = $side{$$self}{log};
    if    (ref $log eq 'CODE') { $log->($event) }
    elsif (defined $log)       { }
    elsif ($event->{level} <= 6) { print STDERR "$event->{line}\n" }
    return;
}

# The worker side ------------------------------------------------------------

sub socket  { $_[0]->listener(0) }
sub current { $side{ ${ $_[0] } }{worker} }

sub leaving {
    my ($self) = @_;
    my $side = $side{$$self};
    return $side->{leaving} || $side->{worker}->is_leaving;
}

# Waits for a connection in a way that a TERM or a drain can end, and then lets FCGI.pm accept it.
sub accept {
    my ($self, $request) = @_;
    my $side   = $side{$$self};
    my $worker = $side->{worker} or Carp::croak('accept is for workers: call manage first');
    return _accept_native($side, $self, $request) if FCGI->can('_attach_worker');
    if ($side->{in_request}) {
        $side->{in_request} = 0;
        # FCGI.pm's Accept would do it too, but only after the wait for the next connection.
        $request->Finish;
        return if !$worker->post_dispatch;
    }
    while (1) {
        return if $side->{leaving};
        my $found = $worker->wait($self->listener(0), -1);
        return if $found == 0;
        next   if $found == 2;
        if ($request->Accept >= 0) {
            $worker->pre_dispatch;
            $side->{in_request} = 1;
            return 1;
        }
        # Another worker was faster.
        return if !$worker->post_dispatch;
    }
}

# With `:fcgi` the library's responder waits by itself, on kept connections too, and looks after the worker.
sub _accept_native {
    my ($side, $self, $request) = @_;
    my $worker = $side->{worker};
    my $leaves = sub { $side->{leaving} || $worker->is_leaving ? 1 : 0 };
    $side->{native} ||= FCGI->can('_attach_worker')->($worker, $self,
        sub { my ($what) = @_; return $what eq 'left' ? 1 : $what eq 'failed' ? 0 : $leaves->() }, 0);
    $worker->ready if !$side->{said}++;
    return $request->Accept >= 0 ? 1 : undef;
}

sub ready   { $_[0]->current->ready }
sub fatal   { my ($self, $why) = @_; $self->current->fatal($why); POSIX::_exit(1) }
sub extend_deadline { my ($self, $seconds) = @_; $self->current->extend_deadline(int($seconds * 1000)) }

{
    my $free = \&FCGI::Guard::Pool::DESTROY;
    no warnings 'redefine';
    *FCGI::Guard::Pool::DESTROY = sub { delete $side{ ${ $_[0] } }; $free->($_[0]) };
}

require Config;

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::Pool - a pre-fork pool of Perl workers

=head1 SYNOPSIS

    my $pool = FCGI::Guard::Pool->new(listen => '/run/app.sock', workers => 4, max_requests => 1000);
    $pool->manage or exit $pool->exit_code;

    my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%ENV, $pool->socket);
    while ($pool->accept($request)) {
        ...
        $request->Finish;
    }

With FCGI.pm each connection carries one request: the web server must not keep connections (nginx: C<fastcgi_keep_conn
off>, the default). With C<:fcgi> (L<FCGI::Guard::FCGI>), and with L<FCGI::Guard::ProcManager> on either, it may.

=head1 METHODS

=head2 new(%options)

Any option of the one table (C<fcgiguard help options>, docs/options.md), with underscores; lists as array references. All that
is wrong dies at once, with an L<FCGI::Guard::Error>. Two more:
C<log> (a sub that gets each event as a hash reference, or C<0> for silence; the default prints to STDERR) and C<fd>
(the number of a socket that listens already, for example from C<FCGI::OpenSocket>).

C<image>: how this program is started again, as an array reference, for L</upgrade>. The default is the command line
that started it, where that is a script's; C<0> refuses upgrades, which a program must that becomes a daemon by
itself.

=head2 manage

Binds, starts the workers and looks after them. Returns true in each worker. In the manager it returns false when
the pool has ended; C<exit_code> is then what the program should exit with. TERM and INT end after the requests in
flight, QUIT at once, HUP replaces the workers, TTIN and TTOU change their number by one. Perl's own handlers are
given back when it returns.

=head2 accept($request)

For workers with an L<FCGI> request object: waits, accepts, and protects the request from TERM. Returns false when the
worker should leave.

=head2 socket, current, ready, leaving, extend_deadline($seconds), fatal($why)

The listening descriptor; the worker handle; say that this worker can serve (else the first accept says it); whether
it should leave; more time for the request under way; stop the whole pool, since restarting cannot help (not while others serve and this
worker, of the first generation, has not been ready).

=head2 upgrade

Replaces the program by a new image of itself, in the same process: what it had loaded before C<manage> is loaded
anew. It is run once as a test, up to C<manage>; if that fails the old image serves on and the event C<upgrade_failed>
says why. The sockets and the workers stay, and the workers are then replaced. USR2 does the same. See
L<FCGI::Guard::Manual>.

=head2 step($timeout_ms), next_event, signal($number), reload($reason), scale($n), stop, quit, status_json

For programs with a loop of their own.

=cut
