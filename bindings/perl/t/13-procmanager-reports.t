use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Managed;
use IO::Socket::INET;
use Time::HiRes qw(sleep time);

# The situations of the reports that started this project. Beside some, FCGI::ProcManager does the same, where it is
# installed; what it does is printed and not judged.
my $ours = 'FCGI::Guard::ProcManager';
my $peer = eval { require FCGI::ProcManager; 'FCGI::ProcManager' };

sub free_port { my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!; return $s->sockport }

# HUP under load.
for my $port (undef, free_port()) {
    for my $class ($ours, $peer || ()) {
        my $app = Managed->new(class => $class, key => { n_processes => 3 }, port => $port);
        $app->up;
        my $lost = $app->load(9000, sub { $app->signal('HUP') });
        my $where = ($port ? 'TCP' : 'unix') . ', ' . $app->count('sending TERM to PIDs') . ' reloads, 9000 requests';
        if ($class eq $ours) { is $lost, 0, "HUP under load ($where): none lost" }
        else                 { diag "beside it, $class ($where): $lost lost" }
        my $status = $app->stop;
        is $status, 0, 'ends' if $class eq $ours;
    }
}

# TERM to workers from outside, under load.
for my $class ($ours, $peer || ()) {
    my $app = Managed->new(class => $class, key => { n_processes => 3 });
    $app->up;
    my $lost = $app->load(3000, sub { kill TERM => $app->workers });
    if ($class eq $ours) { is $lost, 0, 'TERM to every worker under load: none lost' }
    else                 { diag "beside it, $class: $lost lost" }
    $app->stop;
}

# Loops that know nothing: no FAIL_ACCEPT_ON_INTR, no pm_pre_dispatch, no pm_post_dispatch.
(my $plain = $Managed::LOOP) =~ s/, FCGI::FAIL_ACCEPT_ON_INTR\(\)/, 0/;
$plain =~ s/^\s+\$pm->pm_p\w+_dispatch;\n//mg;
$plain =~ s/^\s+\$request->Finish;\n//mg;
my $app = Managed->new(program => $plain, key => { n_processes => 2 });
$app->up;
my %old = map { $_ => 1 } $app->workers;
$app->signal('HUP');
$app->wait_for('idle workers of a plain loop leave on HUP', sub { my @now = $app->workers; @now == 2 && !grep { $old{$_} } @now });
is $app->load(1500, sub { $app->signal('HUP') }), 0, 'and under load nothing is lost';
my ($c, $n_held) = $app->hold;
kill TERM => $app->workers;
$app->release($n_held);
like $app->answer_of($c), qr/pid/, 'its request lives through TERM';
is $app->stop, 0, 'and TERM ends the pool';

# A program with an accept of its own.
$app = Managed->new(program => <<'CODE', key => { n_processes => 2, die_timeout => 20, cooperate => 'none' });
use IO::Socket::UNIX;
my $listen = IO::Socket::UNIX->new(Local => $ENV{TEST_SOCKET}, Listen => 50) or die $!;
my $pm = $class->new({ @key });
$pm->pm_manage;
while (1) {
    my $c = $listen->accept or next;
    $pm->pm_pre_dispatch;
    sysread $c, my $buffer, 8192;
    my $text = "X: y\r\n\r\npid $$\n";
    syswrite $c, pack('CCnnCC', 1, 6, 1, length $text, 0, 0) . $text . pack('CCnnCC', 1, 3, 1, 8, 0, 0) . "\0" x 8;
    close $c;
    $pm->pm_post_dispatch;
}
CODE
$app->up;
# A worker that has never had a request in such a loop leaves by its deadline only (LIMITS), so each gets one.
my $everybody = sub {
    my %had;
    for (1 .. 2000) {
        $had{ $app->ask // '' } = 1;
        return 1 if !grep { !$had{$_} } $app->workers;
    }
    return 0;
};
ok $everybody->(), 'each worker has served';
%old = map { $_ => 1 } $app->workers;
$app->signal('HUP');
$app->wait_for('a loop that repeats its own accept leaves on HUP', sub { my @now = $app->workers; @now == 2 && !grep { $old{$_} } @now });
ok $everybody->(), 'and each of the new ones';
my $t = time;
is $app->stop, 0, 'and on TERM';
cmp_ok time - $t, '<', 15, 'before its deadline';

# The manager is killed while a child serves: the idle one goes at once, the busy one after its answer; a new manager binds.
for my $class ($ours, $peer || ()) {
    my $port = free_port();
    my $first = Managed->new(class => $class, key => { n_processes => 2 }, port => $port);
    $first->up;
    my @workers = $first->workers;
    my ($busy, $number) = $first->hold;
    kill KILL => $first->{pid};
    $first->wait_end;
    $t = time;
    my $left;
    # A peer that stays is not waited for as long as a test is hung.
    while (time - $t < ($class eq $ours ? Managed::HUNG : 1.5)) {
        $left //= time - $t if 1 == grep { $first->alive($_) } @workers;
        last if defined $left;
        sleep 0.01;
    }
    my $there = grep { $first->alive($_) } @workers;
    $first->release($number);
    my $answer = $first->answer_of($busy);
    if ($class eq $ours) {
        ok defined $left, 'manager killed: the idle worker is gone while the other serves';
        like $answer, qr/pid/, 'the request in progress is answered';
        $first->wait_for('then its worker goes too', sub { !grep { $first->alive($_) } @workers });
        $first->start;
        $first->up;
        ok $first->ask, 'a restart on the same port at once';
        is $first->stop, 0;
    }
    else {
        diag sprintf "beside it, %s: idle worker %s; %d of 2 workers still there after 1.5 s", $class, defined $left ? "gone after $left s" : 'stays', $there;
        kill KILL => grep { $first->alive($_) } @workers;
    }
}

# Restart: TERM and start, on TCP and at once.
$app = Managed->new(key => { n_processes => 2 }, port => free_port());
for (1 .. 3) {
    $app->up;
    is $app->stop, 0, 'stopped';
    $app->start;
}
$app->up;
ok $app->ask, 'bound again each time';
is $app->stop, 0;

# A configuration file that is touched under load reloads the pool (the Foswiki wish).
$app = Managed->new(key => { n_processes => 2, watch => 'site.cfg', watch_debounce => '100ms', sample_interval => '50ms' },
    program => "if (!-e 'site.cfg') { open my \$o, '>', 'site.cfg'; print \$o 1 }\n$Managed::LOOP");
$app->up;
my $n = 1;
my $lost = $app->load(2000, sub { open my $out, '>', "$app->{dir}/site.cfg"; print {$out} 'x' x ++$n }, 0.4);
is $lost, 0, 'a configuration file touched under load: none lost';
$app->wait_for('and the workers are new', sub { $app->log_text =~ /reload done/ });
is $app->stop, 0;

# 1,000 signals into newborn workers and a reloading manager: no pseudo-manager, no deaf worker.
$app = Managed->new(key => { n_processes => 3, die_timeout => 20 });
$app->up;
for (1 .. 250) {
    $app->signal('HUP');
    kill TERM => $app->workers;
    sleep 0.002;
    kill HUP => $app->workers;
    sleep 0.002;
}
$app->wait_for('it settles', sub { $app->workers == 3 && $app->ask });
my @workers;
$app->wait_for('the workers are workers', sub { @workers = $app->workers; @workers == 3 && 3 == grep { $app->title($_) eq 'perl-fcgi' } @workers });
is $app->stop, 0, 'TERM ends it';
ok !grep({ $app->alive($_) } @workers), 'with all of them';

# HUP and TERM close together: a start that was decided before the stop was heard becomes no second manager.
my $hung = 0;
for my $n (1 .. 25) {
    $app = Managed->new(key => { n_processes => 2 });
    $app->up;
    $app->signal('HUP');
    sleep 0.05 * rand;
    $app->signal('HUP');
    sleep 0.002 * ($n % 5);
    $hung++ if $app->stop != 0;
    last if $hung;
}
is $hung, 0, 'HUP, then TERM: it ends each time';

done_testing;
