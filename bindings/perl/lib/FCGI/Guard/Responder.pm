package FCGI::Guard::Responder;

use strict;
use warnings;
use Carp ();

our $VERSION = '0.001000';

sub new {
    my ($class, @given) = @_;
    my %option = FCGI::Guard::Error::_options('a responder', @given);
    my ($listen, $fd, $pool) = delete @option{qw(listen fd pool)};
    Carp::croak('listen, fd and pool exclude each other') if 1 < grep { defined } $listen, $fd, $pool;
    my $self = bless FCGI::Guard::Responder::new_handle(), $class;
    FCGI::Guard::Error::_each(sub {
        my $value = $option{ $_[0] };
        $self->set($_[0], ref $value eq 'ARRAY' ? join(',', @$value) : $value) if defined $value;
    }, sort keys %option);
    if (defined $pool) {
        my $worker = $pool->current or Carp::croak('a pool serves in its workers only: call manage first');
        $self->attach($pool->socket, $worker);
        # Pool::manage has a handler for TERM and HUP that only its own accept looks at.
        $SIG{$_} = sub { $self->leave } for qw(TERM HUP);
    }
    elsif (defined $fd) { $self->attach(ref $fd ? fileno $fd : $fd) }
    elsif (defined $listen) { $self->open($listen) }
    else                    { $self->open }
    return $self;
}


1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::Responder - a FastCGI accept loop on a memory-safe parser

=head1 SYNOPSIS

    use FCGI::Guard;

    my $loop = FCGI::Guard->responder(listen => '/run/app.sock');
    while (my $request = $loop->accept) {
        my $params = $request->params;                      # a hash reference
        $request->read(my $body, $params->{CONTENT_LENGTH} || 0);
        $request->print("Content-Type: text/plain\r\n\r\n", "Hello, $params->{REMOTE_ADDR}\n");
        $request->error("said hello\n");                    # the web server's error log
        $request->finish;
    }

    # In a pool
    my $pool = FCGI::Guard::Pool->new(listen => '/run/app.sock', workers => 4);
    $pool->manage or exit $pool->exit_code;
    my $loop = FCGI::Guard->responder(pool => $pool);

=head1 THE LOOP

=head2 FCGI::Guard->responder(%options), FCGI::Guard::Responder->new(%options)

Where to listen, one of: C<listen> (an address: C<unix:/path>, C</path>, C<host:port>, C<:port>), C<fd> (a handle or
number of a socket that listens already), C<pool> (in a worker of an L<FCGI::Guard::Pool>). Without any of them
descriptor 0, as web servers, C<spawn-fcgi> and C<fcgiguard run> start a program; if that is no listening socket, the
program serves one plain CGI request from its environment.

Further options, as text: C<head_timeout>, C<body_timeout>, C<write_timeout>, C<keep_idle>, C<leave_grace> (durations), C<keep_max>,
C<keep_conn>, C<drop_proxy_header>, C<web_server_addrs>, C<params_bytes>, C<params_count>, C<value_len>, C<spill_max>.

Make it after fork: in another process than its maker's its calls die with C<wrong_process>.

=head2 accept

Waits for the next request and returns it; undef when the program should leave (its manager asks for it, or C<leave>
was called). A request that is still open is finished first. Perl's signal handlers run while it waits. It dies only
of what the system lacks (descriptors, memory), never because of a peer.

=head2 next, fd

For programs with an event loop: wait until C<fd> is readable, then call C<next> until it returns 0 (nothing now) or
undef (leave).

=head2 leave

Ends the loop at the next accept, or the one that waits now if it is called from a signal handler.

=head1 THE REQUEST

Everything is bytes: print dies of a character above 255.

=head2 params, param($name)

All params as a reference to a hash that is yours to change; one of them. Of equal names the last wins.

=head2 read($buffer, $length [, $offset]), getline

As perl's C<read> and C<readline>; C<$/> has its meaning. Dies when the web server goes away or falls silent before
the body is complete, so that half an upload is not taken for a whole one.

=head2 print(@strings), write(@strings), error(@strings), flush, send_file($fd, $offset, $length)

C<print> and C<write> append to the answer, C<error> to the web server's log. Up to 64 kB are held back, so that a
short answer is one write; C<flush> sends what there is. True, or false when the web server does not take it any more.

=head2 finish([$status])

Ends the request. False when the web server did not get all of it. A request whose object is dropped is finished too.

=head2 is_aborted, role, read_data($buffer, $length)

Whether the web server gave up; 1 responder, 2 authorizer, 3 filter; a filter's second stream.

=head1 ERRORS

L<FCGI::Guard::Error> objects.

=cut
