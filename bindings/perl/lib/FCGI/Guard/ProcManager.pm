package FCGI::Guard::ProcManager;

# FCGI::ProcManager's published interface on FCGI::Guard::Pool. The pool decides who is started and who leaves; this
# class turns its events into the old lines and methods, and the old methods into the pool's and the worker's calls.
use strict;
use warnings;
use Carp         ();
use POSIX        ();
use Scalar::Util ();
use Time::HiRes  ();
# Early: to see the sockets that the program opens, and how it was started.
use FCGI::Guard::ProcManager::Sockets;

our $VERSION = '0.001000';

our (@EXPORT, @EXPORT_OK, %EXPORT_TAGS, $SIG_CODEREF, $Default);

@EXPORT_OK = qw(pm_manage pm_die pm_wait pm_write_pid_file pm_remove_pid_file pm_pre_dispatch pm_post_dispatch
    pm_change_process_name pm_received_signal pm_parameter pm_warn pm_notify pm_abort pm_exit $SIG_CODEREF);
%EXPORT_TAGS = (all => \@EXPORT_OK);

# The object whose pool this process belongs to; one in a process, as its signal handlers are.
my $active;

my %DEFAULTS = (role => 'manager', start_delay => 0, die_timeout => 60, pm_title => 'perl-fcgi-pm');

# Keys of new() that mean the same as an option of the pool under another name.
my %SAME_AS = (n_processes => 'workers', die_timeout => 'stop_timeout');

# Signals that are the manager's. TERM and HUP go through sig_manager, as they always did.
my @MANAGED = qw(TERM HUP INT QUIT USR1 USR2 TTIN TTOU);

# "For ever" of a die_timeout that is undef: ten years, in seconds.
use constant FOR_EVER => 315_360_000;

sub import {
    my ($class, @names) = @_;
    my $replace = grep { $_ eq 'replace' } @names;
    @names = grep { $_ ne 'replace' } @names;
    require FCGI::Guard::ProcManager::Replace if $replace;
    return if !@names;
    my $into = caller;
    my %known = map { $_ => 1 } @EXPORT_OK;
    for my $name (map { $_ eq ':all' ? @EXPORT_OK : $_ } @names) {
        my $plain = $name;
        $plain =~ s/^&//;
        Carp::croak("\"$name\" is not exported by the $class module") if !$known{$plain};
        no strict 'refs';
        if ($plain =~ s/^\$//) { *{"${into}::$plain"} = \${ __PACKAGE__ . "::$plain" } }
        else                   { *{"${into}::$plain"} = \&{$plain} }
    }
    return;
}

sub new {
    my ($proto, @init) = @_;
    my %init = @init == 1 && ref $init[0] ? %{ $init[0] } : @init;
    my $self = bless { PIDS => {}, %DEFAULTS, %init }, ref $proto || $proto;
    return $self;
}

# The object of a call as method, class method or plain function, and the other arguments.
sub self_or_default {
    my (@args) = @_;
    return @args if Scalar::Util::blessed($args[0]) && $args[0]->isa(__PACKAGE__);
    my $class = __PACKAGE__;
    $class = shift @args if defined $args[0] && !ref $args[0] && $args[0] =~ /\A\w+(?:::\w+)*\z/ && $args[0]->isa(__PACKAGE__);
    $Default ||= $class->new;
    return ($Default, @args);
}

# What is ours in the object lives under one key, so that the rest is what it was given.
sub _guard { $_[0]{_guard} ||= { errors => 0 } }

# The manager ----------------------------------------------------------------

sub pm_manage {
    my ($this, %set) = self_or_default(@_);
    $this->{$_} = $set{$_} for keys %set;
    return if !$this->{n_processes} || $this->{n_processes} =~ /\A-/;

    my $guard = $this->_guard;
    return $this->_join_guard if $this->_is_guarded;
    $this->{MANAGER_PID} = $$;
    $this->{PIDS}        = {};
    my $pool = $guard->{pool} = $this->_open_pool;
    $active = $this;
    $this->managing_init;
    $this->pm_notify('initialized');
    $this->_start_slowly;

    while (1) {
        $this->pm_wait;
        $this->_obey if !$guard->{born} && !defined $guard->{ended};
        return $this->_become_worker if $guard->{born};
        return $this->pm_die($guard->{ended}, $pool->exit_code) if defined $guard->{ended};
    }
}

sub managing_init {
    my ($this) = @_;
    $this->_install_signals(@MANAGED) if !$this->no_signals;
    $this->pm_change_process_name($this->pm_title);
    $this->pm_write_pid_file;
    return;
}

# Whether this process is a worker of `fcgiguard run` already, and serves what it was given: then that is the manager, and a second
# one under it would hide the workers from it.
sub _is_guarded {
    my ($this) = @_;
    return 0 if ($ENV{FCGIGUARD_MANAGER_PID} || 0) != getppid() || defined $this->{listen} || defined $this->{fd};
    my ($socket) = FCGI::Guard::ProcManager::Sockets->listening;
    # Descriptor 0, or one of LISTEN_FDS, from 3 on.
    return defined $socket && ($socket == 0 || $socket >= 3 && $socket < 3 + ($ENV{LISTEN_FDS} || 0));
}

# Its signals, limits and restarts are fcgiguard's; what is left of a manager is what a worker does at its start.
sub _join_guard {
    my ($this) = @_;
    $this->{MANAGER_PID} = getppid();
    $this->{role} = 'server';
    $this->handling_init;
    $this->pm_notify("initialized; fcgiguard (pid $this->{MANAGER_PID}) is the manager");
    $this->_prepare;
    return 1;
}

# The options that a pool of forks takes. Those that prepare a command's process are names like any other here, a subclass's.
sub _option_names { return grep { !FCGI::Guard::option_exec_only($_) } FCGI::Guard::option_names() }

# The options of the pool: every key of the object that has the name of one, and the old names.
sub _pool_options {
    my ($this) = @_;
    my %known = map { $_ => 1 } _option_names();
    my %option = map { $_ => $this->{$_} } grep { $known{$_} && defined $this->{$_} } keys %$this;
    $option{ $SAME_AS{$_} } = $this->{$_} for grep { exists $this->{$_} } keys %SAME_AS;
    $option{stop_timeout} = FOR_EVER if !defined $option{stop_timeout};
    $option{name} = $this->{pm_title} if !defined $option{name} && defined $this->{pm_title};
    return %option;
}

sub _open_pool {
    my ($this) = @_;
    require FCGI::Guard;
    require FCGI::Guard::Pool;
    # For the workers, but loaded once.
    require FCGI::Guard::ProcManager::Accept;
    my $guard   = $this->_guard;
    my %option  = $this->_pool_options;
    my $sockets = $guard->{sockets} = FCGI::Guard::ProcManager::Sockets->find($this, delete $option{listen});
    $option{listen} = $sockets->addresses;
    $option{$_} //= $sockets->option->{$_} for keys %{ $sockets->option };
    $guard->{workers} = $option{workers};
    # The pool counts, and has the replacement ready before it asks a worker to leave.
    $guard->{pool_max} = $option{max_requests};
    $option{jitter} //= 0 if ($option{max_requests} || 0) <= 10;
    $option{workers} = 1 if $this->start_delay && ($option{sizing} // 'static') eq 'static';
    $option{image} = $this->{image} // ($sockets->survives_upgrade ? [FCGI::Guard::Image->command] : 0);
    $this->_hint;
    my $pool = FCGI::Guard::Pool->new(%option, log => 0);
    $pool->open;
    $sockets->opened($pool);
    # A program with an accept of its own gets its socket back as it was.
    $guard->{foreign_loop} = 1 if !$INC{'FCGI.pm'} || ($this->{cooperate} // '') eq 'none';
    $sockets->set_blocking if $guard->{foreign_loop};
    $this->pm_notify($_) for $sockets->remarks;
    return $pool;
}

# Keys that nobody knows are kept, for subclasses; one that is nearly an option is told, since it may be meant for one.
sub _hint {
    my ($this) = @_;
    my $scratch = FCGI::Guard::Pool::new_handle();
    my %known = map { $_ => 1 } FCGI::Guard::option_names(), qw(preload verify fd image accept_errors fatal_in_reload);
    # Where no subclass can have meant it, somebody may believe that workers are prepared so.
    if (ref($this) =~ /\AFCGI::Guard::ProcManager(?:::|\z)/) {
        for my $key (grep { $_ ne 'cooperate' && defined $this->{$_} && FCGI::Guard::option_exec_only($_) == 1 } sort keys %$this) {
            $this->pm_notify("key $key does nothing here: the program does this itself, before pm_manage");
        }
    }
    for my $key (grep { /\A[a-z]\w+\z/ && !$known{$_} && !$this->can($_) } sort keys %$this) {
        next if eval { $scratch->set($key, ''); 1 };
        my ($near) = "$@" =~ /did you mean (\w+)/ or next;
        # Less like it than that, and it may well be a subclass's.
        next if abs(length($near) - length $key) > 2 || substr($near, 0, 4) ne substr $key, 0, 4;
        $this->pm_notify("key $key is not known; did you mean $near?");
    }
    return;
}

# start_delay seconds between the first starts: the pool begins with one worker and is scaled up.
sub _start_slowly {
    my ($this) = @_;
    my $guard = $this->_guard;
    return if !$this->start_delay || ($this->{sizing} // 'static') ne 'static';
    $guard->{scale} = { at => _now() + $this->start_delay, next => 2 };
    return;
}

sub _now { Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) }

# One worker's end, and all that happens until then. Returns its process id; -1 when a signal wants to be obeyed or the
# pool has ended; 0 in a new worker.
sub pm_wait {
    my ($this) = self_or_default(@_);
    my $guard = $this->_guard;
    my $pool = $guard->{pool} or return -1;
    return -1 if $$ != $this->{MANAGER_PID} || defined $guard->{ended};
    while (1) {
        return shift @{ $guard->{exits} } if @{ $guard->{exits} || [] };
        return -1 if @{ $guard->{signals} || [] };
        my $step = $pool->step($this->_patience);
        if ($step == FCGI::Guard::Pool::WORKER()) {
            $guard->{born} = 1;
            return 0;
        }
        while (my $event = $pool->next_event) { $this->_notice($event) }
        if ($step == FCGI::Guard::Pool::ENDED()) {
            $guard->{ended} = $guard->{why} // 'the pool has ended';
            return shift @{ $guard->{exits} || [] } // -1;
        }
    }
}

# How long a step may wait, in ms: perl runs signal handlers between steps, and a signal that falls between its check and
# the wait is seen at the end of it.
sub _patience {
    my ($this) = @_;
    my $scale = $this->_guard->{scale} or return 1000;
    my $left = int(($scale->{at} - _now()) * 1000);
    return $left > 1000 ? 1000 : $left if $left > 0;
    my $guard = $this->_guard;
    $guard->{pool}->scale($scale->{next}) if !$guard->{dying};
    if ($scale->{next}++ >= $guard->{workers} || $guard->{dying}) { delete $guard->{scale} }
    else                                                           { $scale->{at} = _now() + $this->start_delay }
    return 0;
}

# The pool's events in the old words. Those that had no line before get one if they matter.
sub _notice {
    my ($this, $event) = @_;
    my $guard = $this->_guard;
    my ($kind, $pid) = @$event{qw(kind pid)};
    if ($kind eq 'worker_started') {
        $this->{PIDS}{$pid} = { pid => $pid };
        $this->pm_notify("server (pid $pid) started");
    }
    elsif ($kind eq 'worker_exited') {
        push @{ $guard->{exits} }, $pid;
        delete $this->{PIDS}{$pid};
        $this->pm_notify("server (pid $pid) exited with status $event->{status}");
    }
    elsif ($kind eq 'worker_ready') {
        $guard->{proven} = 1;
    }
    elsif ($kind eq 'worker_leaving' && $event->{text} !~ /max_requests/) {
        # A limit of the pool; of max_requests the worker itself tells.
        $this->pm_notify("server (pid $pid) $event->{text}") if $event->{level} <= 6;
    }
    elsif ($kind eq 'stopping') {
        ($guard->{why} = $event->{text}) =~ s/^stopping: //;
    }
    elsif ($event->{level} <= 5 && !($guard->{dying} && $kind eq 'scaled')) {
        return if $kind eq 'scaled' && $guard->{scale};
        # One that was KILLed earlier (a reload, a deadline) is no abort of the end.
        $guard->{killed} = 1 if $kind eq 'worker_killed' && $guard->{dying};
        $this->pm_notify($pid > 0 ? "server (pid $pid) $event->{text}" : $event->{text});
    }
    return;
}

# Signals are noted by their handler and obeyed here, between two steps.
sub _obey {
    my ($this) = @_;
    my $signals = $this->_guard->{signals} or return;
    while (defined(my $name = shift @$signals)) {
        if    ($name =~ /^(?:TERM|HUP)$/) { $this->sig_manager($name) }
        elsif ($name eq 'INT')            { $this->pm_notify('received signal INT'); $this->pm_die('safe exit from signal INT') }
        else                              { $this->_tell_pool($name) }
    }
    return;
}

sub _tell_pool {
    my ($this, $name) = @_;
    my $pool = $this->_guard->{pool} or return;
    $pool->signal(_number_of($name));
    return;
}

sub _number_of {
    my ($name) = @_;
    no strict 'refs';
    return &{"POSIX::SIG$name"}();
}

sub sig_manager {
    my ($this, $name) = @_;
    if ($name eq 'TERM') {
        $this->pm_notify("received signal $name");
        $this->pm_die("safe exit from signal $name");
    }
    elsif ($name eq 'HUP') {
        # The pool starts the new workers first and then asks the old ones to leave.
        $this->_say_whom;
        $this->_tell_pool('HUP');
    }
    else {
        $this->pm_notify("ignoring signal $name");
    }
    return;
}

sub _say_whom {
    my ($this) = @_;
    $this->pm_notify('sending TERM to PIDs, ' . join(' ', sort { $a <=> $b } keys %{ $this->{PIDS} }));
    return;
}

sub pm_die {
    my ($this, $msg, $status) = self_or_default(@_);
    my $guard = $this->_guard;
    my $pool  = $guard->{pool};
    if ($pool && !$guard->{dying} && $$ == $this->{MANAGER_PID}) {
        $guard->{dying} = 1;
        $this->pm_remove_pid_file;
        if (!defined $guard->{ended}) {
            $this->_say_whom if %{ $this->{PIDS} };
            $pool->stop;
            while (!defined $guard->{ended}) {
                $this->pm_wait;
                # A start that was decided before the stop was heard: a worker with nothing to do, and not the dying one.
                POSIX::_exit(0) if $guard->{born};
                while (defined(my $name = shift @{ $guard->{signals} || [] })) {
                    $pool->quit if $name eq 'QUIT';
                }
            }
            return $this->pm_abort('wait timeout') if $guard->{killed};
        }
    }
    return $this->pm_exit("dying: $msg", defined $status ? $status : ());
}

sub pm_write_pid_file {
    my ($this, $fname) = self_or_default(@_);
    $fname = $this->pid_fname if !defined $fname;
    return if !defined $fname || !length $fname;
    open my $out, '>', $fname or return $this->pm_warn("open: $fname: $!");
    print {$out} "$$\n";
    close $out or $this->pm_warn("close: $fname: $!");
    return;
}

sub pm_remove_pid_file {
    my ($this, $fname) = self_or_default(@_);
    $fname = $this->pid_fname if !defined $fname;
    return if !defined $fname || !length $fname;
    unlink $fname or $this->pm_warn("unlink: $fname: $!");
    return;
}

# Signals of both roles -------------------------------------------------------

# The handler itself. What it does depends on who this process is now: the manager, a worker, or a fork of either that
# the program made, which gets the signal's default.
sub sig_sub {
    my ($name) = @_;
    goto &$SIG_CODEREF if ref $SIG_CODEREF eq 'CODE';
    my $this = $active or return;
    my $guard = $this->_guard;
    if ($guard->{worker_pid}) {
        if ($guard->{worker_pid} == $$) {
            $this->sig_handler($name);
            # The responder is told at once, so that it ends its connection together with the answer in hand.
            FCGI::Guard::FCGI::_leave() if $guard->{native} && FCGI::Guard::ProcManager::Accept::should_leave();
            return;
        }
    }
    elsif ($$ == $this->{MANAGER_PID}) {
        push @{ $guard->{signals} }, $name;
        return;
    }
    else {
        # A worker before its first step: the library holds the signals that are its own; this one was the manager's.
        return if $guard->{pool} && getppid() == $this->{MANAGER_PID};
    }
    # Perl holds a signal back while its handler runs: it must be let in before this handler is in place again.
    local $SIG{$name} = 'DEFAULT';
    kill $name => $$;
    POSIX::sigprocmask(POSIX::SIG_UNBLOCK(), POSIX::SigSet->new(_number_of($name)));
    return;
}

# With SA_RESTART, so that FCGI.pm's reads and writes of a request are not cut short (a wait ends all the same); without it
# for a program whose own accept must end.
sub _handle {
    my ($name, $restart) = @_;
    my $action = POSIX::SigAction->new(\&sig_sub, POSIX::SigSet->new, $restart ? POSIX::SA_RESTART() : 0);
    $action->safe(1);
    POSIX::sigaction(_number_of($name), $action);
    return;
}

sub sig_method { return \&sig_sub }

sub _install_signals {
    my ($this, @names) = @_;
    for my $name (@names) {
        # A handler of the program's own for anything but TERM and HUP stays.
        next if $name !~ /^(?:TERM|HUP)$/ && ref $SIG{$name};
        $SIG{$name} = \&sig_sub;
    }
    return;
}

# A worker: TERM and HUP are remembered and end it after its request; between two requests at once.
sub sig_handler {
    my ($this, $name) = @_;
    my $guard = $this->_guard;
    $this->{SIG_RECEIVED}{$name}++;
    return if $guard->{busy} || $guard->{waits};
    # Between requests in an accept that is not FCGI.pm's: it fails with EINTR, and a loop that repeats it ends here.
    $this->pm_exit("safe exit after SIG$name") if $guard->{foreign_loop} && $guard->{dispatched};
    return;
}

sub pm_received_signal {
    my ($this, $name) = self_or_default(@_);
    return defined $name ? $this->{SIG_RECEIVED}{$name} : $this->{SIG_RECEIVED};
}

# The worker ------------------------------------------------------------------

sub _become_worker {
    my ($this) = @_;
    my $guard = $this->_guard;
    $guard->{worker}     = $guard->{pool}->worker;
    $guard->{worker_pid} = $$;
    delete @$guard{qw(born exits signals scale)};
    delete $this->{PIDS};
    $this->{role} = 'server';
    if ($this->no_signals) {
        # The library has put its own handlers in place of the program's: back to those.
        for my $name (qw(TERM INT HUP)) { $SIG{$name} = $SIG{$name} if $SIG{$name} }
    }
    else {
        _handle($_, !$guard->{foreign_loop}) for qw(TERM HUP);
        for my $name (grep { !/^(?:TERM|HUP)$/ } @MANAGED) {
            $SIG{$name} = 'DEFAULT' if ref $SIG{$name} && $SIG{$name} == \&sig_sub;
        }
        # A Ctrl-C is sent to every process of the terminal, and a worker leaves on it as on TERM.
        _handle('INT', !$guard->{foreign_loop}) if !$SIG{INT} || $SIG{INT} eq 'DEFAULT';
    }
    $this->handling_init;
    $this->pm_notify('initialized');
    $this->_prepare;
    if   ($guard->{foreign_loop}) { FCGI::Guard::ProcManager::Accept::listen_for_nudges($this, $guard) }
    else                          { FCGI::Guard::ProcManager::Accept::attach($this, $guard) }
    return 1;
}

sub handling_init {
    my ($this) = @_;
    $this->pm_change_process_name('perl-fcgi');
    return;
}

# What must be right before this worker serves: `preload`, then `verify`. Where no worker has been ready yet, another try cannot
# cure a failure, and the whole pool ends. Later the reload fails, or the replacement of one worker is tried again: a module that
# is half way through a deploy must not take the workers along that serve.
sub _prepare {
    my ($this) = @_;
    for my $step (qw(preload verify)) {
        next if !defined $this->{$step};
        my $method = "_$step";
        next if eval { $this->$method($this->{$step}); 1 };
        my $why = $@;
        # The last line of a module that does not compile is about this file.
        $why =~ s/(?<=\n)Compilation failed in require at \Q${\ __FILE__}\E line \d+\.\s*\z//;
        $why =~ s/\s+\z//;
        $this->pm_abort("$step failed: $why", $this->{give_up_code} || 1) if $this->_guard->{proven} && !$this->{fatal_in_reload};
        $this->fatal("$step failed: $why");
    }
    return;
}

sub _preload {
    my ($this, $what) = @_;
    return $what->($this) if ref $what eq 'CODE';
    for my $module (ref $what ? @$what : split /[,\s]+/, $what) {
        (my $file = "$module.pm") =~ s{::}{/}g;
        require $file;
    }
    return;
}

# [Module => 'method', Module => [qw(several methods)], ...]: what `require` alone does not tell.
sub _verify {
    my ($this, $what) = @_;
    if (ref $what eq 'CODE') {
        $what->($this) or die "the check said no\n";
        return;
    }
    my @pairs = ref $what eq 'HASH' ? %$what : @$what;
    while (my ($module, $methods) = splice @pairs, 0, 2) {
        $this->_preload([$module]) if !$module->can('can') || !_loaded($module);
        for my $method (ref $methods ? @$methods : $methods) {
            $module->can($method) or die "$module has no method '$method'\n";
        }
    }
    return;
}

sub _loaded {
    my ($module) = @_;
    (my $file = "$module.pm") =~ s{::}{/}g;
    no strict 'refs';
    return $INC{$file} || grep({ defined &{"${module}::$_"} } keys %{"${module}::"});
}

# Ends this worker, and the pool with it: restarting cannot help. While a reload is under way only the reload fails.
sub fatal {
    my ($this, $why) = self_or_default(@_);
    my $worker = $this->_guard->{worker};
    my $code = $this->{give_up_code} || 1;
    if ($worker && ($worker->generation <= 1 || $this->{fatal_in_reload})) {
        $worker->fatal($why);
    }
    return $this->pm_abort("fatal: $why", $code);
}

sub pm_pre_dispatch {
    my ($this) = ref $_[0] ? @_ : self_or_default(@_);
    my $guard = $this->{_guard} || $this->_guard;
    $guard->{busy} = $guard->{open} = $guard->{dispatched} = 1;
    # The library's own responder has said it at its accept.
    $guard->{worker}->pre_dispatch if $guard->{worker} && !$guard->{native};
    return;
}

sub pm_post_dispatch {
    my ($this) = ref $_[0] ? @_ : self_or_default(@_);
    my $why = $this->_request_done;
    return if !defined $why;
    my $guard = $this->_guard;
    if ($guard->{native}) {
        # As below: what has come meanwhile is served first.
        if (FCGI::Guard::FCGI::_wind_up()) {
            $guard->{leave} = $why;
            return;
        }
    }
    elsif (!$guard->{foreign_loop} && $guard->{worker}) {
        FCGI::Guard::ProcManager::Accept::last_words();
        # A peer that keeps the connection may be writing its next request: the next accept looks, and ends the loop.
        if (FCGI::Guard::ProcManager::Accept::is_kept()) {
            $guard->{leave} = $why;
            return;
        }
    }
    $this->pm_exit($why);
    return;
}

# The request is over. Returns why this worker should leave now, undef to go on.
sub _request_done {
    my ($this) = @_;
    my $guard  = $this->{_guard} || $this->_guard;
    my $worker = $guard->{worker};
    my $go     = !$worker ? 1 : $guard->{native} ? !$worker->is_leaving : $worker->post_dispatch;
    $guard->{busy} = 0;
    my $over = $this->_count;
    if (my $received = $this->{SIG_RECEIVED}) {
        for my $name (qw(TERM HUP INT)) {
            return "safe exit after SIG$name" if $received->{$name};
        }
    }
    if ($worker && getppid() != $this->{MANAGER_PID}) { return 'safe exit: manager has died' }
    return $over if $go || defined $over;
    return $this->_why_asked;
}

# Counts the request that has ended, once; why it was this worker's last, or undef.
sub _count {
    my ($this) = @_;
    my $guard = $this->_guard;
    my $open = delete $guard->{open};
    $open = FCGI::Guard::FCGI::_counted() if $guard->{native};
    return $guard->{over} if !$open;
    $guard->{served}++;
    $guard->{over} = $this->_limit_reached if !defined $guard->{over};
    return $guard->{over};
}

# The manager has asked this worker to leave. Its word has no reason with it; when the pool's limit is near, that is it.
sub _why_asked {
    my ($this) = @_;
    my $guard = $this->_guard;
    my ($max, $served) = ($guard->{pool_max}, $guard->{served});
    return 'safe exit after SIGTERM' if !$max || !$served;
    my $jitter = $max <= 10 ? 0 : $this->{jitter} // 10;
    return $served >= int($max * (1 - $jitter / 100)) ? "safe exit after max_requests ($served)" : 'safe exit after SIGTERM';
}

# Why this worker has served enough, or undef. Called once after each request, also by subclasses. The pool's own limit is not
# looked at here; one that was set or changed in the worker is.
sub _limit_reached {
    my ($this) = @_;
    my $guard = $this->_guard;
    my $max = $this->{max_requests} or return undef;    ## no critic (explicit undef: called in list context too)
    return undef if $guard->{pool_max} && $guard->{pool_max} == $max;    ## no critic
    my $limit = $max - int($max * $this->_spread);
    return $guard->{served} >= $limit ? "safe exit after max_requests ($guard->{served})" : undef;
}

# Whether it has to be asked after each request.
sub _counts_itself {
    my ($this) = @_;
    return 1 if ($this->{max_requests} || 0) != ($this->_guard->{pool_max} || 0);
    return $this->can('_limit_reached') != \&_limit_reached ? 1 : 0;
}

# This worker's part of `jitter`, 0 to 1, drawn once. Few requests are taken as they are: somebody means them.
sub _spread {
    my ($this) = @_;
    return 0 if $this->{max_requests} <= 10 || !$this->_guard->{worker};
    my $jitter = defined $this->{jitter} ? $this->{jitter} : 10;
    return $this->_guard->{spread} //= _chance() * $jitter / 100;
}

# Not perl's rand: a worker must not share its parent's seed, nor seed the program's.
sub _chance { return (($$ * 2654435761 ^ int(Time::HiRes::time() * 1e6)) % 9973) / 9973 }

sub _asked_to_leave {
    my ($this) = @_;
    return 1 if grep { $this->{SIG_RECEIVED}{$_} } qw(TERM HUP INT);
    my $worker = $this->_guard->{worker} or return 0;
    return $worker->is_leaving;
}

# Of both ----------------------------------------------------------------------

sub pm_change_process_name {
    my ($this, $name) = self_or_default(@_);
    $0 = $name if defined $name;
    return;
}

sub pm_parameter {
    my ($this, $key, @value) = self_or_default(@_);
    $this->{$key} = $value[0] if @value;
    return $this->{$key};
}

for my $name (qw(n_processes no_signals pid_fname die_timeout role start_delay pm_title)) {
    no strict 'refs';
    *{$name} = sub { my ($this, @value) = self_or_default(@_); $this->pm_parameter($name, @value) };
}

sub pm_warn {
    my ($this, $msg) = self_or_default(@_);
    $this->pm_notify($msg);
    return;
}

sub pm_notify {
    my ($this, $msg) = self_or_default(@_);
    $msg = '' if !defined $msg;
    $msg =~ s/\s*\z/\n/;
    print STDERR 'FastCGI: ' . $this->role . " (pid $$): $msg";
    return;
}

sub pm_exit {
    my ($this, $msg, $status) = self_or_default(@_);
    $this->pm_notify($msg) if defined $msg;
    exit($status || 0);
}

sub pm_abort {
    my ($this, $msg, $status) = self_or_default(@_);
    return $this->pm_exit($msg, $status || 1);
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::ProcManager - FCGI::ProcManager's interface on the fcgiguard manager

=head1 SYNOPSIS

    use CGI::Fast;
    use FCGI::Guard::ProcManager;

    my $manager = FCGI::Guard::ProcManager->new({ n_processes => 10 });
    $manager->pm_manage;
    while (my $cgi = CGI::Fast->new) {
        $manager->pm_pre_dispatch;
        ...
        $manager->pm_post_dispatch;
    }

    plackup -s FCGI --listen /run/app.sock --nproc 5 --manager FCGI::Guard::ProcManager app.psgi
    script/myapp_fastcgi.pl -l /run/app.sock -n 5 -M FCGI::Guard::ProcManager

    # A program that names FCGI::ProcManager itself, as it is:
    PERL5OPT=-MFCGI::Guard::ProcManager=replace script/server.pl

=head1 DESCRIPTION

A pre-fork manager for FastCGI programs on L<FCGI>, L<CGI::Fast>, Plack or Catalyst, with the methods, functions,
keys, log lines and exit codes of FCGI::ProcManager 0.28. Below them works the pool of L<FCGI::Guard::Pool>: new
workers are ready before old ones leave, a crash at start is braked, idle workers leave at once, and no request is
lost when a worker leaves.

In a worker of C<fcgiguard run> this class starts nothing: see L</UNDER fcgiguard run>.

A program or a subclass that runs on FCGI::ProcManager runs on this class. L</DIFFERENCES FROM FCGI::ProcManager> says
what it may notice.

=head1 THE SWITCH

C<use FCGI::Guard::ProcManager 'replace'>, C<-MFCGI::Guard::ProcManager=replace>, or that in the environment variable
C<PERL5OPT>, puts this class and its family in the place of FCGI::ProcManager and of its subclasses Constrained,
MaxRequests, MaxSize and Dynamic. The library itself is loaded when C<pm_manage> is called, so the switch costs other
perl programs little.

=head1 UNDER fcgiguard run

There the manager exists already, so C<pm_manage> returns 1 at once: no fork, no signal handlers, no pid file.
C<handling_init>, C<preload> and C<verify> work as in any worker (C<fatal> ends it with C<give_up_code>, which is
fcgiguard's C<fatal_codes>). C<n_processes> and the limits of the pool are options of fcgiguard. A program with a
manager built in needs no switch of its own:

    fcgiguard run --listen /run/app.sock --workers 4 -- plackup -s FCGI --manager FCGI::Guard::ProcManager app.psgi
    fcgiguard run --listen /run/app.sock --workers 4 --env PERL5OPT=-MFCGI::Guard=:fcgi -- plackup -s FCGI app.psgi

plackup looks for the variable that Server::Starter sets, and fcgiguard sets it too; so without this class, and
without C<:fcgi>, plackup starts FCGI::ProcManager under each worker. C<--manager ""> is what stops that. fcgiguard
cannot look after the processes of such a second manager, and says so in its log.

=head1 THE LISTENING SOCKET

The program opens it as before and passes it to C<FCGI::Request> as before; it stays the program's. C<pm_manage> looks
for it in this order:

=over

=item 1.

The keys C<listen> (addresses, as in the pool's option; the pool binds them) and C<fd> (a number).

=item 2.

The socket of an C<FCGI::Request> that was made after this module was loaded.

=item 3.

Descriptor 0, if it listens.

=item 4.

Any other descriptor that listens. With several, the lowest, and a line says so.

=item 5.

C<FCGI_SOCKET_PATH>, or the C<socket_path> that CGI::Fast was imported with: the manager opens it, and each worker's
C<FCGI::OpenSocket> of that path gets the manager's socket.

=item 6.

None: the program opens one later, and the manager knows nothing of its queue.

=back

While the pool runs, the socket is non-blocking.

=head1 KEYS OF new

C<new> takes a hash reference (or a list). Keys that are not known are kept. Those of the original:

=over

=item n_processes

How many workers. Without it (or 0) C<pm_manage> returns false at once and installs nothing.

=item pid_fname

File for the manager's process id; removed at the end.

=item start_delay (0)

Seconds between the first starts.

=item die_timeout (60)

Seconds that workers have to finish their requests; then they are killed, and the manager exits with 1. C<undef> is
for ever.

=item no_signals

No signal handlers are installed.

=item pm_title (perl-fcgi-pm)

The manager's process name. A worker's is C<perl-fcgi>.

=back

Ours:

=over

=item every option of the pool

C<max_requests>, C<max_memory>, C<max_lifetime>, C<request_timeout>, C<watch>, C<control>, C<sizing>,
C<failure_action> and the others of C<fcgiguard help options>, except those that prepare a command's process (L</LIMITS>).

=item preload

Modules (array reference, or a string with commas) or a sub, loaded in each worker before it is ready. HUP then loads
their new text.

=item verify

C<< [ Module => 'method', Other => [qw(several methods)] ] >>, or a sub that returns true. What C<require> alone does
not tell: a class that was loaded while its file was being replaced has no C<new>.

When C<preload> or C<verify> fails before any worker was ready, the pool ends at once with C<give_up_code> (1) and
the reason. Once one was, only the failing worker exits: a reload is given up and the old workers serve on, and the successor
of a single worker is started again, ever more slowly (with C<< fatal_in_reload => 1 >> the pool ends then too).

=item accept_errors

A worker leaves (exit code 1) after so many failed accepts in a row. Without it a failure goes to the program, as
FCGI.pm does it.

=item fd

The number of the listening socket.

=item image

How the program is started again for an upgrade (USR2): an array reference, or 0 to refuse. The default is its own
command line, unless it has become another process since (C<--daemonize>), or opened its socket by other means than
C<FCGI::OpenSocket>, C<listen> or descriptor 0, where a new image could not get it back. See L<FCGI::Guard::Manual>.

=item cooperate

C<none>: the program does not use FCGI.pm's Accept. Assumed when FCGI is not loaded when C<pm_manage> is called. See
L</LIMITS>.

=back

=head1 METHODS

Each is a method, and a class method or exported function of a default object where marked with *. C<:all> exports
these.

=over

=item new({ key => value, ... })

Keys that nobody knows are kept, for subclasses.

=item pm_manage * ([key => value, ...])

Returns 1 in each worker. Never returns in the manager.

=item managing_init, handling_init

Called in the manager before its loop, and in each worker before C<pm_manage> returns. For subclasses.

=item sig_manager($name)

Called in the manager on TERM and HUP. TERM calls C<pm_die>, HUP replaces the workers. For subclasses. INT is a TERM
that does not come by here; QUIT, USR1, USR2, TTIN and TTOU are the pool's (option C<signals>).

=item sig_handler($name)

Called in a worker on TERM and HUP. It only remembers the signal, in C<{SIG_RECEIVED}>.

=item pm_pre_dispatch *, pm_post_dispatch *

Around a request. C<pm_post_dispatch> exits if the worker should leave: after a signal, when the manager asks or has
died, when a limit is reached. A loop that calls neither is also protected, and leaves in its accept.

=item pm_die * ($message [, $status])

Ends the workers after their requests, and the manager.

=item pm_wait *

Runs the pool until a worker has ended; its process id, or -1 when a signal wants to be obeyed. In a new worker it
returns 0.

=item pm_exit *, pm_abort * ($message [, $status])

Tell and exit, with 0 and with 1 if no other status is given.

=item pm_notify *, pm_warn * ($message)

Print C<FastCGI: ROLE (pid N): MESSAGE> to STDERR.

=item pm_write_pid_file *, pm_remove_pid_file * ([$file])

=item pm_change_process_name * ($name), pm_received_signal *, pm_parameter * ($key [, $value])

As they are called.

=item n_processes, pid_fname, no_signals, die_timeout, role, start_delay, pm_title

Accessors.

=item fatal($why)

In a worker: restarting cannot help. Ends the worker, and the pool as C<preload> does.

=back

C<{PIDS}> (in the manager), C<{MANAGER_PID}> and C<{SIG_RECEIVED}> are as subclasses know them.

=head1 DIFFERENCES FROM FCGI::ProcManager

=over

=item *

HUP: new workers are started first, and the old ones asked to leave one by one as these are ready. The line
C<sending TERM to PIDs> is the same. If the new workers fail, the old ones stay. C<reload ...> lines are new.

=item *

Workers are asked through a pipe, not by TERM. Idle ones leave at once, also without C<FAIL_ACCEPT_ON_INTR>: their
C<Accept> returns -1. A loop that ignores this ends at the third time.

=item *

When the manager dies, idle workers leave at once and busy ones after their request.

=item *

A worker that dies before it is ready is started again with a growing delay.

=item *

INT ends the pool like TERM; in the original it kills the manager only.

=item *

C<start_delay> is between the first starts only. Later ones are braked by need.

=item *

C<pm_abort> honours its status.

=item *

C<max_requests> is known to this class already. The replacement is started first; see
L<FCGI::Guard::ProcManager::MaxRequests>.

=item *

USR2 is an upgrade: what the program has loaded before C<pm_manage> is loaded anew. See L<FCGI::Guard::Manual>.

=item *

A worker that leaves in its C<Accept> says C<safe exit ...> there; the program's loop then ends as usual.

=back

=head1 LIMITS

The wait for a connection is ours, by standing in front of C<FCGI::Accept> and C<FCGI::Finish> in the workers; FCGI.pm
itself is unchanged and parses. With C<:fcgi> (L<FCGI::Guard::FCGI>) the library's responder waits and parses itself,
at less than half the CPU of FCGI::ProcManager on FCGI.pm; C<Accept> does not end there by a signal that does not ask
the worker to leave. A program that accepts by other means gets the manager's word as SIGIO, which interrupts a
blocking accept; there a request between accept and C<pm_pre_dispatch> can be lost, and a worker that has never called
C<pm_pre_dispatch> leaves only if its loop ends on EINTR, else it is killed at C<die_timeout>. FCGI.pm has to be
loaded before C<pm_manage>.

On a connection that the web server keeps, a leaving worker ends the connection together with its last answer. A
web server that has sent its next request already must send it again elsewhere; nginx does.

Options that prepare a command's process (C<user>, C<chroot>, C<env>, C<rlimit_nofile>...) are no options here: the program
does this itself, and a key of such a name is kept, for subclasses.

=head1 SEE ALSO

L<FCGI::Guard::Manual>, L<FCGI::Guard::Pool>, L<FCGI::Guard::ProcManager::Constrained>,
L<FCGI::Guard::ProcManager::MaxRequests>, L<FCGI::Guard::ProcManager::MaxSize>, L<FCGI::Guard::ProcManager::Dynamic>,
L<FCGI::Guard::ProcManager::Replace>

=cut
