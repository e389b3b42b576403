use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Managed;
use Time::HiRes qw(sleep time);

# What sites had to write by hand: preload checks, exit codes, a limit of failed accepts, a brake, a failure window.
sub module { my ($app, $text) = @_; open my $out, '>', "$app->{dir}/App.pm" or die $!; print {$out} $text; close $out; return }

my $with_lib = "use lib '.';\n$Managed::LOOP";

# What FCGI::ProcManager does with a program that cannot start, where it is installed: printed, not judged. One second is enough.
sub beside {
    my ($program, $ours) = @_;
    return if !eval { require FCGI::ProcManager; 1 };
    my $peer = Managed->new(class => 'FCGI::ProcManager', program => $program, key => { n_processes => 2 });
    sleep 1;
    my $times = $peer->count('\) started');
    $peer->stop('KILL');
    diag "a worker that cannot start: $ours; beside it, FCGI::ProcManager: $times in 1 s, and on";
    return;
}

# A preload that fails ends the pool at once and says why.
my $app = Managed->new(program => $with_lib, key => { preload => ['App'], give_up_code => 78 });
is $app->wait_end >> 8, 78, 'a preload that fails ends the pool with its code';
like $app->log_text, qr/fatal: preload failed: Can't locate App\.pm/, 'says why';
cmp_ok $app->count('\) started'), '<=', 3, 'and is not tried again and again';
(my $by_hand = $with_lib) =~ s/(\$pm->pm_manage;)/$1 require App;/;
beside($by_hand, 'preload that fails, the pool ends after ' . $app->count('\) started') . ' starts');

# `require` succeeds, the method is missing: the race of the outage.
$app = Managed->new(program => "BEGIN { mkdir 'x'; open my \$o, '>', 'App.pm'; print \$o 'package App; 1;' }\n$with_lib",
    key => { verify => [App => 'new'] });
is $app->wait_end >> 8, 1, 'a method that is missing after require';
like $app->log_text, qr/fatal: verify failed: App has no method 'new'/;

# It is there: the pool serves. Then a bad deploy: the reload fails, nothing is lost, and a good one heals.
$app = Managed->new(program => "BEGIN { if (!-e 'App.pm') { open my \$o, '>', 'App.pm'; print \$o 'package App; sub new { } 1;' } }\n$with_lib",
    key => { verify => [App => [qw(new can)]] });
$app->up;
my @old = sort $app->workers;
module($app, 'package App; 1;');
$app->signal('HUP');
$app->wait_for('a reload onto bad code is given up', sub { $app->log_text =~ /reload given up.*serves on/ });
ok $app->ask, 'the old workers serve on';
# The one that failed may be on its way out.
$app->wait_for('the same', sub { "@{[sort $app->workers]}" eq "@old" });
module($app, 'package App; sub new { 2 } 1;');
$app->signal('HUP');
$app->wait_for('a reload onto good code', sub { $app->log_text =~ /reload done/ });
ok $app->ask;
is $app->stop, 0;

# The same while nobody reloads: a worker of the first generation dies half way through a deploy. Its successors fail, the others serve.
$app = Managed->new(program => "BEGIN { if (!-e 'App.pm') { open my \$o, '>', 'App.pm'; print \$o 'package App; 1;' } }\n$with_lib",
    key => { preload => 'App', n_processes => 2, control => 'unix:ctl' });
$app->up;
require FCGI::Guard::Client;
my $control = FCGI::Guard::Client->new("$app->{dir}/ctl");
$app->wait_for('the manager knows that both are ready', sub { ($control->request(param => { PATH_INFO => '/status' })->text) =~ /2 of 2 workers ready|"ready":2/ });
module($app, "package App;\nsub new {");
kill KILL => ($app->workers)[0];
$app->wait_for('its successor fails', sub { $app->log_text =~ /: preload failed:/ });
unlike $app->log_text, qr/Compilation failed in require at \S+ProcManager/, 'told without a line of the manager';
sleep 0.5;
ok $app->ask, 'the others serve on';
module($app, 'package App; 1;');
$app->wait_for('and it comes back with good code', sub { $app->workers == 2 && $app->ask });
is $app->stop, 0;

# A key that is nearly an option's name.
$app = Managed->new(key => { max_request => 5, timeouts => 3, mine => 1 });
$app->up;
like $app->log_text, qr/key max_request is not known; did you mean max_requests\?/;
unlike $app->log_text, qr/key (?:mine|timeouts)/;
is $app->stop, 0;

# A subclass's own keys, by names that are options of a command's pool: kept, and nobody refuses them.
my $own = <<'OWN';
package Mine;
use parent 'FCGI::Guard::ProcManager';
my @keys = qw(user env output nice cooperate);
sub handling_init { my ($self) = @_; $self->SUPER::handling_init; return $self->pm_notify(join ' ', 'mine:', map { "$_=$self->{$_}" } @keys) }
1;
OWN
$app = Managed->new(class => 'Mine', files => { 'Mine.pm' => $own }, env => { PERL5LIB => '.' },
    key => { user => 'a person', env => 'staging', output => 'html', nice => 'very', cooperate => 'gladly' });
$app->up;
like $app->log_text, qr/mine: user=a person env=staging output=html nice=very cooperate=gladly/, 'kept for the subclass';
unlike $app->log_text, qr/does nothing here|invalid/, 'and it is not told of them';
is $app->stop, 0;

# Without a subclass somebody may have meant the option.
$app = Managed->new(key => { user => 'www-data' });
$app->up;
like $app->log_text, qr/key user does nothing here/, 'a key that a command\'s pool would have obeyed is told';
is $app->stop, 0;

# A request that hangs leaves its stack in the log (the manual says how), and is the only one that is lost.
my $tells = <<'CODE';
use Carp ();
open my $log, '>&', \*STDERR or die $!;
$SIG{USR1} = sub { syswrite $log, "a request of $$ hangs" . Carp::longmess(''); POSIX::_exit(1) };
sub deep_in_the_site { select undef, undef, undef, 60; my $order = shift; return $order }
CODE
(my $hangs = $Managed::LOOP) =~ s/(\$pm->pm_manage;\n)/$1$tells/;
$hangs =~ s/(    \$pm->pm_pre_dispatch;\n)/$1    deep_in_the_site('an order') if (\$ENV{QUERY_STRING} || '') eq 'hang';\n/;
$app = Managed->new(program => $hangs, key => { request_timeout => '500ms', request_signal => 'USR1' });
$app->up;
my @before = $app->workers;
my $hung = $app->send_request('hang');
ok $app->ask, 'others are served meanwhile';
$app->wait_for('the worker of a hung request is replaced', sub { my @now = $app->workers; @now == 2 && "@now" ne "@before" });
my ($pid) = $app->log_text =~ /a request of (\d+) hangs.*\n(?:\s+eval .*\n)*\s*main::deep_in_the_site\(["']an order["']\) called at .*app\.pl line \d+/;
my %left = map { $_ => 1 } @before;
ok delete $left{ $pid // 0 }, 'its stack is in the log, with arguments';
is scalar(grep { $left{$_} } $app->workers), 1, 'the other one stays';
is $app->stop, 0;

# Code references.
$app = Managed->new(key_text => q[{ verify => sub { die "no database\n" } }]);
is $app->wait_end >> 8, 1, 'a check of the program';
like $app->log_text, qr/verify failed: no database/;
$app = Managed->new(key_text => q[{ verify => sub { 1 }, preload => sub { print STDERR "preloaded in $$\n" } }]);
$app->up;
like $app->log_text, qr/preloaded in \d+/;
is $app->stop, 0;

# A worker that says it itself, after pm_manage.
(my $fatal = $Managed::LOOP) =~ s/(\$pm->pm_manage;)/$1 \$pm->fatal('licence expired');/;
$app = Managed->new(program => $fatal);
is $app->wait_end >> 8, 1, 'fatal from the worker';
like $app->log_text, qr/licence expired/;

# Exit codes that are fatal.
(my $leaves = $Managed::LOOP) =~ s/(\$pm->pm_manage;)/$1 exit 71;/;
$app = Managed->new(program => $leaves, key => { fatal_codes => '70,71' });
is $app->wait_end >> 8, 71, 'fatal_codes';

# Crash at start: braked, the manager stays and does not spin.
(my $crash = $Managed::LOOP) =~ s/(\$pm->pm_manage;)/$1 exit 3 if !-e 'good';/;
$app = Managed->new(program => $crash, key => { n_processes => 2 });
sleep 3;
my $starts = $app->count('\) started');
cmp_ok $starts, '<', 40, "a crash at start is braked ($starts starts in 3 s)";
beside($crash, "$starts starts in 3 s");
$app->wait_for('and tried again', sub { $app->count('\) started') > 1 });
open my $good, '>', "$app->{dir}/good";
$app->wait_for('heals by itself', sub { -S $app->{path} && $app->workers == 2 && $app->ask });
is $app->stop, 0;

# Ten failures in the window (the outside watcher of 10 in 90 s, scaled): the chosen action.
(my $dies = $Managed::LOOP) =~ s/(\$pm->pm_pre_dispatch;)/$1 kill KILL => \$\$ if (\$ENV{QUERY_STRING} || '') eq 'die';/;
$app = Managed->new(program => $dies, key => { max_failures => 10, failure_window => '9s', failure_action => 'exit', give_up_code => 9 });
$app->up;
$app->ask("die") for 1 .. 9;
ok $app->alive($app->{pid}), 'nine failures are borne';
$app->up;
$app->ask('die') for 1 .. 3;
is $app->wait_end >> 8, 9, 'ten end the pool with the code that was asked for';
like $app->log_text, qr/10 failures within 9000 ms/;
$app = Managed->new(program => $dies, key => { max_failures => 10, failure_window => '9s', failure_action => 'restart', failure_grace => '3s' });
$app->up;
for (1 .. 14) { $app->ask('die') }
$app->wait_for('... or replace all workers', sub { $app->log_text =~ /all workers are replaced/ });
ok $app->ask, 'and it serves';
is $app->stop, 0;

# Accept fails for want of descriptors: so many times in a row, then the worker leaves.
(my $full = $Managed::LOOP) =~ s/(\$pm->pm_manage;)/$1 if (!-e 'enough') { require POSIX; { open my \$e, '>', 'enough' } my \$n = 0; 1 while defined(my \$fd = POSIX::dup(2)) && \$n++ < 100_000 }/;
$app = Managed->new(program => $full, nofile => 40, key => { n_processes => 1, accept_errors => 5 });
$app->wait_for('a worker that cannot accept leaves, its successor serves', sub { -S $app->{path} && $app->ask });
like $app->log_text, qr/accept failed \(Too many open files\), 5 of 5/;
like $app->log_text, qr/5 accepts in a row failed: Too many open files/;
is $app->stop, 0;

done_testing;
