package FCGI::Guard::ProcManager::Accept;

# FCGI.pm's Accept between the worker's calls: the wait is ours (so TERM, a drain and the manager's death end it), the
# line is claimed before the accept (so no request falls between accept and pm_pre_dispatch), the parsing stays its own.
use strict;
use warnings;
use Errno        ();
use Fcntl        ();
use Scalar::Util ();
use Socket       ();
use FCGI::Guard::ProcManager::Sockets;

our $VERSION = '0.001000';

# How long a wait may last, in ms. TERM, HUP, INT and the manager's word end it at once; another signal's handler that falls between
# perl's check and the wait runs at its end.
use constant NAP => 1000;

# How long a leaving worker looks for a request that is already under way on a kept connection, in ms.
use constant LAST_LOOK => 50;

my ($pm, $guard, $accept, $finish, $open_socket, $lifeline);

# The connection of the request in progress or just finished: its number, its name in /proc, and the request until it is finished.
my ($connection, $identity, $current);

# For a program with an accept of its own: the manager's word comes as SIGIO and counts as a TERM, which ends a blocking
# accept with EINTR.
sub listen_for_nudges {
    my ($manager, $its) = @_;
    my $worker = $its->{worker};
    $worker->ready;
    my $line = $its->{lifeline} = copy_of($worker->lifeline_fd) or return;
    my $told;
    $SIG{IO} = sub {
        return if $its->{worker_pid} != $$ || $told;
        return if !$worker->is_leaving && getppid() == $manager->{MANAGER_PID};
        $told = 1;
        $manager->sig_handler('TERM');
    };
    fcntl $line, Fcntl::F_SETOWN(), $$;
    fcntl $line, Fcntl::F_SETFL(), fcntl($line, Fcntl::F_GETFL(), 0) | Fcntl::FASYNC();
    # What came before.
    kill IO => $$;
    return;
}

# Puts itself in front of FCGI.pm's functions.
sub attach {
    my ($manager, $its) = @_;
    ($pm, $guard) = ($manager, $its);
    my $worker = $its->{worker};
    no warnings qw(redefine prototype);
    if (!$open_socket) {
        $open_socket = \&FCGI::OpenSocket;
        *FCGI::OpenSocket = \&open_socket;
    }
    # The library's own responder looks after its worker itself.
    if (my $own = FCGI->can('_attach_worker')) {
        return if $guard->{native} = $own->($worker, $its->{pool}, \&native_word, $manager->_counts_itself);
    }
    return if $accept;
    FCGI::Guard::ProcManager::Sockets::watch_requests();
    ($accept, $finish) = (\&FCGI::Accept, \&FCGI::Finish);
    $lifeline = $worker->lifeline_fd;
    *FCGI::Accept = \&next_request;
    *FCGI::Finish = \&finish;
    return;
}

# What the library's own responder asks: see FCGI::Guard::FCGI.
sub native_word {
    my ($what, $text) = @_;
    if ($what eq 'done') {
        my $why = $pm->_request_done;
        $guard->{leave} = $why if defined $why;
        return defined $why;
    }
    return should_leave() if $what eq 'signal';
    if ($what eq 'failed') {
        my ($errno) = $text =~ /os error (\d+)/;
        return accept_failed($errno, $text);
    }
    $guard->{leave} //= asked();
    return leave();
}

# The manager has opened it already: every worker gets the one socket.
sub open_socket ($$) {
    my ($path) = @_;
    my $sockets = $guard->{sockets};
    my $known = $sockets->program_path;
    return ($sockets->fds)[0] if defined $known && $path eq $known && $guard->{worker_pid} == $$;
    return &$open_socket;
}

sub next_request ($) {
    my ($request) = @_;
    goto &$accept if $guard->{worker_pid} != $$;
    my $listener = FCGI::Guard::ProcManager::Sockets->socket_of($request);
    if (!defined $listener) {
        goto &$accept if $guard->{sockets}->has_none;
        ($listener) = $guard->{sockets}->fds;
    }
    my $worker = $guard->{worker};
    $guard->{ready}++ or $worker->ready;
    # Accept would finish the last request too, but only after the wait.
    finish($request) if $current;
    my $kept = $identity ? still_kept() : undef;
    if ($guard->{busy} || $guard->{open}) {
        my $why = $pm->_request_done;
        $guard->{leave} = $why if defined $why;
    }
    while (1) {
        my $last = should_leave();
        if ($last) {
            return leave() if !defined $kept;
            # What has come in the meantime is served; a peer that writes from now on is told by the kernel.
            return leave() if !knocks($kept, LAST_LOOK) && (!shut_reading($kept) || !knocks($kept, 0) || !has_bytes($kept));
        }
        # From here on a signal waits for the end of FCGI.pm's accept, and a request that is found for its own end.
        $guard->{busy} = 1;
        my $found = await($worker, defined $kept ? $kept : $listener, $last ? 0 : NAP);
        if ($found != 1 && !$last) {
            $guard->{busy} = 0;
            $guard->{leave} //= asked() if $found == 0;
            next;
        }
        my $number = defined $kept ? $kept : next_number($lifeline);
        $! = 0;
        my $got = &$accept($request);
        my $errno = $got < 0 && $got > -9999 ? -$got : $! + 0;
        accepted($worker, $got);
        if ($got >= 0) {
            $guard->{open}   = 1;
            $guard->{errors} = 0;
            ($connection, $identity) = ($number, identity_of($number));
            Scalar::Util::weaken($current = $request);
            return $got;
        }
        $guard->{busy} = 0;
        $worker->post_dispatch or $guard->{leave} //= asked();
        # A kept connection was closed, or another worker was faster.
        if (defined $kept) { undef $kept; next }
        next if $errno == Errno::EAGAIN() || $errno == Errno::EINTR() || $errno == Errno::ECONNABORTED();
        return $got if !accept_failed($errno);
    }
}

sub should_leave {
    return 1 if defined $guard->{leave};
    if (my $received = $pm->{SIG_RECEIVED}) {
        for my $name (qw(TERM HUP INT)) {
            $guard->{leave} //= "safe exit after SIG$name" if $received->{$name};
        }
    }
    $guard->{leave} //= asked() if $guard->{worker}->is_leaving;
    return defined $guard->{leave};
}

sub asked { getppid() == $pm->{MANAGER_PID} ? $pm->_why_asked : 'safe exit: manager has died' }

# Accept fails, as it does when it is interrupted, and the program's loop ends in its own way. A loop that does not look at
# the answer ends here.
sub leave {
    my $told = $guard->{told}++;
    $pm->pm_notify($guard->{leave}) if !$told;
    $pm->pm_exit if $told >= 2;
    $! = Errno::EINTR();
    return -1;
}

# Whether something comes on a descriptor within so many ms. Perl's signal handlers run in here.
sub knocks {
    my ($number, $ms) = @_;
    vec(my $bits = '', $number, 1) = 1;
    return select($bits, undef, undef, $ms / 1000) > 0;
}

# An accept that failed for a reason of its own: counted, and told. False: hand it to the program, as FCGI.pm does.
sub accept_failed {
    my ($errno, $text) = @_;
    my $limit = $pm->{accept_errors} or return 0;
    $text = do { local $! = $errno; "$!" } if $errno;
    my $count = ++$guard->{errors};
    $pm->pm_notify("accept failed ($text), $count of $limit");
    $pm->pm_abort("$count accepts in a row failed: $text", 1) if $count >= $limit;
    # Whatever is missing (descriptors, memory) does not come back at once.
    select undef, undef, undef, 0.05 * $count;
    return 1;
}

# The end of a request. That of a leaving worker is told together with the end of the connection: nobody may take it for
# one more request, and lose it.
sub finish ($) {
    my ($request) = @_;
    if ($guard->{worker_pid} == $$ && is_open($request) && (should_leave() || defined $pm->_count)) {
        last_words();
        return;
    }
    undef $current if is_open($request);
    goto &$finish;
}

# FCGI.pm does not tell the number of its connection: the kernel gives the lowest free one (next_number), and what is open there
# is the same connection as long as it is the same inode (identity_of).

# Whether this request has been accepted and not yet finished.
sub is_open { $current && $current == $_[0] }

# The connection of the last request, if it is still open after its end.
sub still_kept {
    my $kept = is_kept() ? $connection : undef;
    undef $identity;
    return $kept;
}

sub is_kept { return $identity && identity_of($connection) == $identity }

# Finishes the request in progress as this worker's last on its connection. On a unix socket our side stops reading
# first, so that a peer that writes at that moment gets EPIPE; on TCP the last record and the end share a segment.
sub last_words {
    my $request = $current or return;
    undef $current;
    if (!is_kept()) {
        &$finish($request);
        return;
    }
    # What is left of the body would be lost with the reading side, and FCGI.pm reads it too if it keeps the connection.
    my ($in) = $request->GetHandles;
    if (($request->GetEnvironment->{CONTENT_LENGTH} || 0) > 0) {
        local $/ = \8192;
        1 while defined readline $in;
    }
    my $tcp = !shut_reading($connection);
    my $copy = copy_of($connection);
    setsockopt $copy, Socket::IPPROTO_TCP(), Socket::TCP_CORK(), 1 if $tcp && $copy;
    &$finish($request);
    shutdown $copy, 1 if $copy && is_kept();
    undef $identity;
    return;
}

sub copy_of {
    my ($number) = @_;
    open my $copy, '+<&', $number or return;
    return $copy;
}

# True on a unix socket, and done; on TCP the peer would not learn of it.
sub shut_reading {
    my ($number) = @_;
    my $copy = copy_of($number) or return 0;
    my $name = getsockname $copy;
    return 0 if !defined $name || Socket::sockaddr_family($name) != Socket::AF_UNIX();
    return shutdown $copy, 0;
}

sub has_bytes {
    my ($number) = @_;
    my $copy = copy_of($number) or return 0;
    my $got = recv $copy, my $byte, 1, Socket::MSG_PEEK() | Socket::MSG_DONTWAIT();
    return defined $got && length $byte;
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::ProcManager::Accept - the wait of a managed FCGI.pm worker

=head1 DESCRIPTION

Internal to L<FCGI::Guard::ProcManager>. In a worker it stands in front of C<FCGI::Accept> and C<FCGI::OpenSocket>.

=cut
