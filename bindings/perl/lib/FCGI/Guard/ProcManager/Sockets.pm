package FCGI::Guard::ProcManager::Sockets;

# Which socket the program serves. It is the program's own and stays where it is: the pool gets a copy, to measure the
# queue and to let its workers wait. Only when nobody has opened one yet does the manager do it.
use strict;
use warnings;
use Cwd    ();
use Fcntl  ();
use Socket ();
use Scalar::Util ();
use FCGI::Guard::Image ();

our $VERSION = '0.001000';

# Requests made by FCGI::Request since this module was loaded: address of the object => number of its socket.
my %socket_of;

# Descriptors that FCGI::OpenSocket has given out since then: an upgraded image gets them again.
my %opened;

sub is_ours {
    my ($number) = @_;
    return $opened{$number} || FCGI->can('_opened') && grep { $_ == $number } FCGI::_opened();
}

sub find {
    my ($class, $pm, $listen) = @_;
    my $self = bless { addresses => [], option => {}, remarks => [] }, $class;
    my @given = defined $listen ? ref $listen ? @$listen : split /,/, $listen : ();
    push @given, "fd:$pm->{fd}" if defined $pm->{fd};
    my @open = @given ? () : $class->listening;
    if (@given) {
        $self->{addresses} = [@given];
        $self->{lost_by_upgrade} = 1 if grep { /^fd:(\d+)/ && $1 > 2 && !is_ours($1) } @given;
    }
    elsif (@open) {
        my ($number) = @open;
        # A socket that the program has opened in a way of its own cannot be found again by a new image.
        $self->{lost_by_upgrade} = 1 if $number > 2 && !is_ours($number);
        $self->{addresses} = ["fd:$number"];
        push @{ $self->{remarks} }, 'several listening sockets (' . join(' ', @open)
            . "), looking after $number; `fd` names another" if @open > 1;
    }
    elsif (my $path = $ENV{FCGI_SOCKET_PATH} || $CGI::Fast::socket) {
        # CGI::Fast opens it in each worker, where only the first would succeed.
        $self->{program_path} = $path;
        $self->{addresses} = [FCGI::Guard::Image::address_of($path)];
        $self->{option}{backlog}     = $ENV{FCGI_LISTEN_QUEUE} if $ENV{FCGI_LISTEN_QUEUE};
        $self->{option}{socket_mode} = $ENV{FCGI_SOCKET_PERM}  if $ENV{FCGI_SOCKET_PERM};
    }
    else {
        # The pool needs a socket and the program has none (yet): one that nobody can find.
        $self->{nobody} = $class->nobodys;
        $self->{addresses} = ['fd:' . fileno $self->{nobody}];
    }
    return $self;
}

sub addresses    { $_[0]{addresses} }
sub option       { $_[0]{option} }
sub survives_upgrade { !$_[0]{lost_by_upgrade} }
sub remarks      { @{ $_[0]{remarks} } }
sub has_none     { defined $_[0]{nobody} }
sub program_path { $_[0]{program_path} }

# The pool has opened what was asked for; note the numbers.
sub opened {
    my ($self, $pool) = @_;
    my @fds;
    while ((my $fd = $pool->listener(scalar @fds)) >= 0) { push @fds, $fd }
    $self->{fds} = \@fds;
    # FCGI.pm's own would stay open beside the pool's in every new image.
    for my $number (keys %opened) {
        open my $copy, '<&=', $number or next;
        fcntl $copy, Fcntl::F_SETFD(), Fcntl::FD_CLOEXEC();
        # Kept: closing the handle would close it.
        $opened{$number} = $copy;
    }
    return;
}

sub fds { @{ $_[0]{fds} || [] } }

# The sockets of FCGI::Request objects if any were seen, else every listening descriptor of this process, lowest first.
sub listening {
    my ($class) = @_;
    my %seen;
    my @made = FCGI->can('_sockets') ? FCGI->can('_sockets')->() : values %socket_of;
    my @known = grep { is_listening($_) && !$seen{$_}++ } sort { $a <=> $b } @made;
    return @known if @known;
    return (0) if is_listening(0);
    # Of an upgraded image only what it has asked for; the others are the former image's, for the pool.
    return sort { $a <=> $b } grep { is_listening($_) } keys %opened, FCGI->can('_opened') ? FCGI::_opened() : ()
        if FCGI::Guard::Image->goes_on;
    opendir my $dir, '/proc/self/fd' or return grep { is_listening($_) } 3 .. 255;
    return grep { is_listening($_) } sort { $a <=> $b } grep { /^\d+$/ } readdir $dir;
}

sub is_listening {
    my ($number) = @_;
    # A copy, since closing the handle closes what it was made from.
    open my $copy, '+<&', $number or return 0;
    my $answer = getsockopt $copy, Socket::SOL_SOCKET(), Socket::SO_ACCEPTCONN();
    return defined $answer && unpack('i', $answer) ? 1 : 0;
}

sub nobodys {
    # Bound to an empty name: the kernel chooses an abstract one.
    socket(my $socket, Socket::AF_UNIX(), Socket::SOCK_STREAM(), 0) or die "socket: $!\n";
    bind($socket, pack 'S', Socket::AF_UNIX()) or die "bind: $!\n";
    listen($socket, 1) or die "listen: $!\n";
    return $socket;
}

sub set_blocking {
    my ($self) = @_;
    for my $number ($self->fds) {
        open my $copy, '+<&', $number or next;
        my $flags = fcntl $copy, Fcntl::F_GETFL(), 0;
        fcntl $copy, Fcntl::F_SETFL(), $flags & ~Fcntl::O_NONBLOCK();
    }
    return;
}

# The socket of an FCGI::Request object; undef if it was made before this module was loaded.
sub socket_of { $socket_of{ Scalar::Util::refaddr($_[1]) } }

# Notes the socket of each request object that is made from now on. Harmless before FCGI.pm is loaded.
my $watching;

sub watch_requests {
    # The library's own interface knows its requests itself.
    return if $watching || !defined &FCGI::Request || FCGI->can('_sockets');
    $watching = 1;
    my $open = \&FCGI::OpenSocket;
    {
        no warnings qw(redefine prototype once);
        *FCGI::OpenSocket = sub {
            my ($where, $backlog) = @_;
            my $known = $where =~ /:\d+\z/ ? $where : FCGI::Guard::Image::absolute($where);
            $known = $where if length $known > 107;
            my $number = FCGI::Guard::Image->goes_on ? FCGI::Guard::Image::listen_at($where, $backlog) : $open->($known, $backlog);
            $opened{$number} = 1;
            return $number;
        };
    }
    my $made = \&FCGI::Request;
    no warnings qw(redefine prototype once);
    *FCGI::Request = sub (;***$*$) {
        my $request = &$made;
        # FCGI.pm has put the number in the place of a handle.
        $socket_of{ Scalar::Util::refaddr($request) } = defined $_[4] ? $_[4] : 0 if ref $request;
        return $request;
    };
    return;
}

# FCGI.pm may come later: then when it is loaded.
if ($INC{'FCGI.pm'}) {
    watch_requests();
}
else {
    my $hook;
    $hook = sub {
        my (undef, $wanted) = @_;
        return if $wanted ne 'FCGI.pm' || !$hook;
        my $this = $hook;
        undef $hook;
        @INC = grep { !ref $_ || $_ != $this } @INC;
        require FCGI;
        watch_requests();
        my $text = '1;';
        open my $in, '<', \$text or return;
        return $in;
    };
    unshift @INC, $hook;
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::ProcManager::Sockets - which socket a managed program serves

=head1 DESCRIPTION

Internal to L<FCGI::Guard::ProcManager>; its page says how the socket is found.

=cut
