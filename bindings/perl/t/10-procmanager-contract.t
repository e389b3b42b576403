use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Managed;
use Time::HiRes qw(sleep time);
use FCGI::Guard::ProcManager ':all';

# The interface of FCGI::ProcManager 0.28 as its documentation and its behaviour have it.
my $class = 'FCGI::Guard::ProcManager';

my @functions = qw(pm_manage pm_die pm_wait pm_write_pid_file pm_remove_pid_file pm_pre_dispatch pm_post_dispatch
    pm_change_process_name pm_received_signal pm_parameter pm_warn pm_notify pm_abort pm_exit);
ok defined &{"main::$_"}, ":all exports $_" for @functions;
ok !eval q{package Other; FCGI::Guard::ProcManager->import('nonsense'); 1}, 'nothing else is exported';
ok $class->can($_), "method $_"
    for @functions, qw(managing_init handling_init sig_sub sig_manager sig_handler n_processes no_signals pid_fname die_timeout role
    start_delay self_or_default);

my $pm = $class->new({ n_processes => 3, unknown => 'kept' });
is_deeply [@$pm{qw(n_processes unknown role start_delay die_timeout pm_title)}], [3, 'kept', 'manager', 0, 60, 'perl-fcgi-pm'], 'keys and defaults';
is ref $pm->new({}), $class, 'new of an object';
is $pm->die_timeout, 60;
is $pm->die_timeout(7), 7, 'an accessor sets';
is pm_parameter('die_timeout'), 60, 'a function has the default object';
is $class->pm_parameter('die_timeout', 9), 9, 'a class method too';
is pm_parameter('die_timeout'), 9, '... the same one';

for my $n (undef, 0, -1) {
    local %SIG = %SIG;
    ok !$class->new({ n_processes => $n })->pm_manage, 'no processes: false at once';
    ok !defined $SIG{TERM}, 'and no handler';
}

sub run_code {
    my ($code) = @_;
    my @inc = map { "-I$_" } grep { !ref } @INC;
    open my $from, '-|', $^X, @inc, '-we', "open STDERR, '>&', \\*STDOUT; \$| = 1; use FCGI::Guard::ProcManager ':all'; $code" or die $!;
    my $text = do { local $/; <$from> };
    close $from;
    return ($text, $? >> 8);
}
for ([q{pm_exit('bye')}, 'bye', 0], [q{pm_exit('bye', 3)}, 'bye', 3], [q{pm_abort('bad')}, 'bad', 1], [q{pm_die('x', 4)}, 'dying: x', 4]) {
    my ($text, $code) = run_code($$_[0]);
    like $text, qr/^FastCGI: manager \(pid \d+\): \Q$$_[1]\E$/, "$$_[0]: the line";
    is $code, $$_[2], "$$_[0]: the code";
}
is((run_code(q{pm_change_process_name('new'); print $0}))[0], 'new');
is((run_code(q{pm_notify("with newline\n")}))[0] =~ tr/\n//, 1, 'one newline');

# A life: started, one worker killed, one leaves, reload, end.
my $app = Managed->new(key => { pid_fname => 'app.pid', die_timeout => 20, extra => 7 });
$app->up;
my $m = $app->{pid};
like $app->log_text, qr/^FastCGI: manager \(pid $m\): initialized$/m;
$app->wait_for('a start is told', sub { $app->log_text =~ /^FastCGI: manager \(pid $m\): server \(pid \d+\) started$/m });
like $app->log_text, qr/^FastCGI: server \(pid \d+\): initialized$/m;
is $app->title($m), 'perl-fcgi-pm', 'title of the manager';
my @old = $app->workers;
is scalar @old, 2, 'two workers';
$app->wait_for('title of a worker', sub { $app->title($old[0]) eq 'perl-fcgi' });
is do { open my $in, '<', "$app->{dir}/app.pid" or die; <$in> }, "$m\n", 'pid file';
kill KILL => $old[0];
$app->wait_for('a killed worker is reported with its raw status',
    sub { $app->log_text =~ /^FastCGI: manager \(pid $m\): server \(pid $old[0]\) exited with status 9$/m });
$app->wait_for('and replaced', sub { $app->workers == 2 });
$app->signal('HUP');
$app->wait_for('HUP replaces every worker', sub { my %now = map { $_ => 1 } $app->workers; keys %now == 2 && !$now{ $old[1] } });
like $app->log_text, qr/^FastCGI: manager \(pid $m\): sending TERM to PIDs, \d+ \d+$/m;
my ($w) = $app->workers;
kill TERM => $w;
$app->wait_for('an idle worker leaves on TERM, its loop ended', sub { $app->log_text =~ /loop of $w ended/ });
$app->wait_for('with status 0', sub { $app->log_text =~ /server \(pid $w\) exited with status 0$/m });
is $app->stop, 0, 'TERM ends with 0';
like $app->log_text, qr/manager \(pid $m\): received signal TERM$/m;
like $app->log_text, qr/manager \(pid $m\): dying: safe exit from signal TERM$/m;
ok !-e "$app->{dir}/app.pid", 'the pid file is gone';

# A request is protected, and its worker leaves after it.
$app = Managed->new(key => { n_processes => 1 });
$app->up;
($w) = $app->workers;
for my $name (qw(TERM HUP)) {
    my ($c, $n, $now) = $app->hold;
    kill $name => $now;
    $app->release($n);
    like $app->answer_of($c), qr/pid $now /, "a request lives through $name";
    $app->wait_for('and its worker leaves', sub { $app->log_text =~ /^FastCGI: server \(pid $now\): safe exit after SIG$name$/m });
}
is $app->stop, 0;

# die_timeout: who does not leave is killed, and the manager aborts.
$app = Managed->new(key => { n_processes => 1, die_timeout => 1 });
$app->up;
my ($busy) = $app->hold;
is $app->stop >> 8, 1, 'die_timeout: exit 1, before the request is done';
like $app->log_text, qr/: wait timeout$/m;

# start_delay between the first starts.
$app = Managed->new(key => { n_processes => 3, start_delay => 1 }, program => <<'CODE' . $Managed::LOOP);
package Timed;
our @ISA = 'FCGI::Guard::ProcManager';
sub pm_notify { my ($this, $msg) = @_; $this->SUPER::pm_notify($msg . ($msg =~ /started/ ? ' at ' . Time::HiRes::time() : '')) }
package main;
$class = 'Timed';
CODE
$app->wait_for('start_delay: all are started in the end', sub { $app->workers == 3 && $app->count('started at') == 3 });
my @at = $app->log_text =~ /started at ([\d.]+)/g;
cmp_ok $at[$_] - $at[$_ - 1], '>', 0.9, "start $_ waited for its second" for 1, 2;
is $app->stop, 0;

# no_signals: the program's handlers stay.
$app = Managed->new(key => { no_signals => 1 }, program => "\$SIG{TERM} = sub { print STDERR \"own handler of \$\$\\n\"; exit 5 };\n$Managed::LOOP");
$app->up;
@old = $app->workers;
is $app->stop >> 8, 5, "no_signals: the program's handler";
$app->wait_for('workers leave after their manager', sub { !grep { $app->alive($_) } @old });

# A subclass: each override is called, with what it was always given.
$app = Managed->new(class => $class, key => { pid_fname => 'app.pid' }, program => <<'CODE' . $Managed::LOOP);
package Sub;
our @ISA = 'FCGI::Guard::ProcManager';
my %seen;
for my $name (qw(managing_init handling_init sig_manager sig_handler pm_die pm_notify pm_exit pm_change_process_name pm_wait
    pm_write_pid_file pm_remove_pid_file)) {
    no strict 'refs';
    *$name = sub {
        my ($this, @args) = @_;
        my $pids = join ',', map { "$_=$this->{PIDS}{$_}{pid}" } sort keys %{ $this->{PIDS} || {} };
        # Not STDERR, which is the web server's while a request is served.
        my $line = "call $$ " . $this->role . " $name [@args] pids $pids manager $this->{MANAGER_PID}\n";
        require POSIX;
        POSIX::write(2, $line, length $line);
        &{"FCGI::Guard::ProcManager::$name"}(@_);
    };
}
package main;
$class = 'Sub';
CODE
$app->up;
$m = $app->{pid};
($w) = my @all = sort { $a <=> $b } $app->workers;
$app->signal('HUP');
$app->wait_for('reload through sig_manager', sub { $app->log_text =~ /reload done/ });
my ($new) = $app->workers;
# While one is leaving, the kernel's list of children may leave another out.
$app->wait_for('the old ones have left', sub { my $log = $app->log_text; 2 == grep { $log =~ /server \(pid $_\) exited/ } @all });
my ($c, $n) = $app->hold;
my %asked = map { $_ => 1 } $app->workers;
kill TERM => keys %asked;
$app->release($n);
$app->answer_of($c);
$app->wait_for('sig_handler', sub { $app->log_text =~ /server sig_handler \[TERM\]/ });
$app->wait_for('those who left have successors', sub { my ($log, @now) = ($app->log_text, $app->workers);
    @now == 2 && 2 == grep { !$asked{$_} && $log =~ /FastCGI: manager \(pid $m\): server \(pid $_\) started/ } @now });
is $app->stop, 0;
like $app->log_text, qr/call $m manager $_/, $_
    for qr/managing_init \[\]/, qr/pm_change_process_name \[perl-fcgi-pm\]/, qr/pm_write_pid_file \[\]/, qr/pm_notify \[initialized\]/, qr/sig_manager \[HUP\]/,
    qr/sig_manager \[TERM\]/, qr/pm_die \[safe exit from signal TERM\] pids \d+=\d+\S* manager $m/, qr/pm_remove_pid_file \[\]/,
    qr/pm_wait/, qr/pm_exit \[dying: safe exit from signal TERM/;
like $app->log_text, qr/call \d+ server $_/, $_
    for qr/handling_init \[\] pids  manager $m/, qr/pm_change_process_name \[perl-fcgi\]/, qr/pm_exit \[safe exit after SIGTERM/;

# sig_manager may do something else altogether.
$app = Managed->new(program => <<'CODE' . $Managed::LOOP);
package Quiet;
our @ISA = 'FCGI::Guard::ProcManager';
sub sig_manager { my ($this, $name) = @_; $name eq 'HUP' ? $this->pm_die('hung up', 6) : kill(KILL => keys %{ $this->{PIDS} }) }
package main;
$class = 'Quiet';
CODE
$app->up;
@old = $app->workers;
$app->signal('TERM');
$app->wait_for('a sig_manager that kills its workers', sub { my $l = $app->log_text; 2 == grep { $l =~ /server \(pid $_\) exited with status 9/ } @old });
$app->wait_for('they are replaced', sub { $app->workers == 2 });
is $app->stop('HUP') >> 8, 6, 'a sig_manager with its own exit code';

done_testing;
