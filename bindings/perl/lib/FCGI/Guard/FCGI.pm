package FCGI::Guard::FCGI;

use strict;
use warnings;
use FCGI::Guard ();
use FCGI::Guard::Image ();

our $VERSION = '0.001000';

# The version of the interface that stands here for what asks for one.
our $STANDS_FOR = '0.82';

my $installed;

# Puts the packages FCGI and FCGI::Stream in place.
sub install {
    my ($class) = @_;
    return if $installed;
    if (defined $INC{'FCGI.pm'}) {
        die "FCGI.pm is loaded already ($INC{'FCGI.pm'}): use FCGI::Guard ':fcgi' before it, or by PERL5OPT\n";
    }
    $installed = 1;
    no strict 'refs';
    *{"FCGI::$_"} = \&$_ for qw(
        RequestX Request Accept Finish Flush LastCall Attach Detach GetHandles GetEnvironment IsFastCGI StartFilterData
        OpenSocket CloseSocket FAIL_ACCEPT_ON_INTR DESTROY _attach_worker _sockets _opened);
    *{"FCGI::Stream::$_"} = \&{"FCGI::Guard::FCGI::Stream::$_"} for qw(
        TIEHANDLE PRINT PRINTF WRITE READ READLINE GETC EOF CLOSE FILENO BINMODE OPEN SEEK TELL DESTROY);
    # An object belongs to one interpreter; a cloned thread gets none.
    *{"FCGI::CLONE_SKIP"} = *{"FCGI::Stream::CLONE_SKIP"} = sub { 1 };
    $FCGI::VERSION = $STANDS_FOR;
    $INC{'FCGI.pm'} = $INC{'FCGI/Guard/FCGI.pm'};
    # A worker of `fcgiguard run` needs no manager, and a program may start one all the same: plackup does. Ours does not
    # fork there.
    require FCGI::Guard::ProcManager::Replace
        if ($ENV{FCGIGUARD_MANAGER_PID} || 0) == getppid() && !$INC{'FCGI/ProcManager.pm'};
    return;
}

sub FAIL_ACCEPT_ON_INTR () { 1 }

sub Request(;***$*$) {
    my ($in, $out, $err, $env, $socket, $flags) = @_;
    my $caller = caller;
    return RequestX(
        _handle($in,  \*STDIN,  $caller),
        _handle($out, \*STDOUT, $caller),
        _handle($err, \*STDERR, $caller),
        $env // \%ENV,
        _descriptor($socket),
        $flags // FAIL_ACCEPT_ON_INTR,
    );
}

# A handle, or the name of one in the caller's package.
sub _handle {
    my ($given, $default, $caller) = @_;
    return $default if !defined $given;
    return $given if ref $given;
    return \$given if ref \$given eq 'GLOB';
    require Symbol;
    return Symbol::qualify_to_ref($given, $caller);
}

# A descriptor's number, or a handle's.
sub _descriptor {
    my ($given) = @_;
    return 0 if !defined $given;
    return $given if !ref $given && $given =~ /\A-?[0-9]+\z/;
    return fileno($given) // -1;
}

# Called in a worker of FCGI::Guard::ProcManager: from here on Accept uses the worker's own line and lifeline. `ask` is called with
# "done" before the end of a request that nobody has counted, with "signal" after one in a wait, with "failed" and the reason, and
# with "left"; its answer is whether to leave (for "failed": whether to try again).
sub _attach_worker {
    my ($worker, $pool, $ask, $counts) = @_;
    return 0 if !$ask;
    _manage($worker, $ask, $counts);
    return 1;
}

# Sockets that OpenSocket made: a handle closes its descriptor when it goes.
my %opened;

# Descriptors that OpenSocket gave out: an upgraded image finds them again.
my %from_us;

sub _opened { return keys %from_us }

sub OpenSocket {
    my ($where, $backlog) = @_;
    if (FCGI::Guard::Image->goes_on) {
        my $descriptor = FCGI::Guard::Image::listen_at($where, $backlog);
        $from_us{$descriptor} = 1;
        return $descriptor;
    }
    require Socket;
    my $socket;
    if ($where =~ /\A(.*):([0-9]+)\z/s) {
        my ($host, $port) = ($1, $2);
        $host =~ s/\A\[(.*)\]\z/$1/s;
        my $numeric_ok = length $host ? 0 : Socket::AI_PASSIVE();
        my ($error, @found) = Socket::getaddrinfo(
            length $host ? $host : '0.0.0.0',
            $port, { socktype => Socket::SOCK_STREAM(), flags => $numeric_ok });
        _fail(-202, 'unresolved_host', "$where: $error") if $error;
        my $at = $found[0];
        socket($socket, $at->{family}, $at->{socktype}, 0) or _fail(-205, 'bind_failed', "$where: socket: $!");
        setsockopt($socket, Socket::SOL_SOCKET(), Socket::SO_REUSEADDR(), pack 'l', 1);
        bind($socket, $at->{addr}) or _fail(-205, 'bind_failed', "$where: bind: $!");
    }
    else {
        # An upgrade finds it by its name, which must not depend on the working directory.
        my $whole = FCGI::Guard::Image::absolute($where);
        $where = $whole if length $whole <= 107;
        _fail(-201, 'invalid_address', "$where: the path is too long for a socket") if length $where > 107;
        my $address = Socket::pack_sockaddr_un($where);
        socket($socket, Socket::AF_UNIX(), Socket::SOCK_STREAM(), 0) or _fail(-205, 'bind_failed', "$where: socket: $!");
        unlink $where if -S $where;
        bind($socket, $address) or _fail(-205, 'bind_failed', "$where: bind: $!");
    }
    listen($socket, $backlog || 100) or _fail(-205, 'bind_failed', "$where: listen: $!");
    $opened{ fileno $socket } = $socket;
    $from_us{ fileno $socket } = 1;
    return fileno $socket;
}

sub CloseSocket {
    my ($descriptor) = @_;
    delete $from_us{$descriptor};
    if (my $socket = delete $opened{$descriptor}) {
        close $socket;
    }
    elsif ($descriptor >= 0) {
        require POSIX;
        POSIX::close($descriptor);
    }
    return;
}

sub _fail {
    my ($code, $name, $message) = @_;
    die FCGI::Guard::Error::_make($code, $name, $message);
}

{
    package FCGI::Guard::FCGI::Stream;

    # What is tied is made by Accept; this gives such an object a further handle.
    sub TIEHANDLE {
        my ($class, $stream) = @_;
        return $stream if ref $stream && UNIVERSAL::isa($stream, 'FCGI::Stream');
        _unsupported('TIEHANDLE');
    }

    sub OPEN { _unsupported('OPEN') }
    sub SEEK { _unsupported('SEEK') }
    sub TELL { _unsupported('TELL') }

    sub _unsupported {
        my ($what) = @_;
        require Carp;
        Carp::croak("a FastCGI stream cannot do $what; Detach gives the real handles back");
    }
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::FCGI - the FCGI interface on fcgiguard's responder

=head1 SYNOPSIS

    perl -MFCGI::Guard=:fcgi app.fcgi
    PERL5OPT=-MFCGI::Guard=:fcgi plackup -s FCGI --listen /run/app.sock app.psgi

    use FCGI::Guard ':fcgi';                    # before anything that uses FCGI
    use CGI::Fast;

=head1 DESCRIPTION

Provides the packages C<FCGI> and C<FCGI::Stream> with the published interface of L<FCGI> 0.82, so that CGI::Fast,
Plack::Handler::FCGI, Catalyst and programs of their own run without a change on a parser that a peer cannot corrupt,
and that neither a slow nor an idle connection can hold. FCGI.pm itself is not loaded and need not be installed.

=head1 FUNCTIONS AND METHODS

C<FCGI::Request>, C<Accept>, C<Finish>, C<Flush>, C<LastCall>, C<Attach>, C<Detach>, C<GetHandles>, C<GetEnvironment>,
C<IsFastCGI>, C<StartFilterData>, C<FCGI::OpenSocket>, C<FCGI::CloseSocket>, C<FCGI::FAIL_ACCEPT_ON_INTR>: as L<FCGI>
describes them. The request's handles are tied to C<FCGI::Stream> from C<Accept> to C<Finish>.

=head1 WHAT IS THE SAME

The environment has the params of the request and C<FCGI_ROLE> and nothing else, and stays so after C<Finish>; if it
is C<%ENV>, programs that are started get it too. C<$,> and C<$\> do not apply to the streams. With C<$|> of the
selected handle each print is sent at once. Text is bytes: a string with a character above 255 goes out as UTF-8, with
a warning of the category C<utf8> (C<use warnings FATAL =E<gt> 'utf8'> makes it die; C<use bytes> says that it is
meant). C<open>, C<seek> and C<tell> die on a stream, C<fileno> is -1. Where C<%SIG> has nothing for them, TERM and
USR1 let the request in hand end, after which C<Accept> returns -1, and PIPE is harmless. C<warn> and C<die> print to
the web server's log while STDERR is tied.

=head1 WHAT DIFFERS

=over

=item *

A handler that the program has put into C<%SIG> stays, and runs while C<Accept> waits, with any flags.

=item *

C<$/> is obeyed: any separator, none, records and paragraphs; in list context all lines come. (FCGI.pm 0.82 stops at
an empty line if C<$/> is undef, and gives one line in list context.)

=item *

C<OpenSocket> dies with an L<FCGI::Guard::Error> where FCGI.pm ends the program. The socket is closed on exec, so that
a program that is started in a request does not hold the address.

=item *

A forked child's streams are the real handles below: what it prints does not get into the middle of its parent's
answer, and its end does not end its parent's request. C<open(my $handle, '-|')> with a child that prints works.

=item *

C<read> returns undef, not 0, if the web server goes away before the body is complete.

=item *

C<LastCall> in a signal handler ends an C<Accept> that waits at once, with any flags.

=item *

Values of params may contain any byte, also NUL.

=item *

A program under C<fcgiguard run> takes part in its manager's reloads, and one under L<FCGI::Guard::ProcManager> in its
own.

=item *

After an upgrade (L<FCGI::Guard::Manual>) C<OpenSocket> gives the socket that the former image had at this place.

=back

=cut
