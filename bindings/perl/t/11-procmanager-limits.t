use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Managed;
use Time::HiRes qw(sleep time);

my $base = 'FCGI::Guard::ProcManager';

# How many requests each worker has answered in `n` of them.
sub shares {
    my ($app, $n) = @_;
    my %served;
    $served{ $app->ask // 'lost' }++ for 1 .. $n;
    return \%served;
}

for my $class ("${base}::MaxRequests", "${base}::Constrained", $base, "${base}::Dynamic") {
    my $app = Managed->new(class => $class, key => { n_processes => 1, max_nproc => 1, max_requests => 3 });
    $app->up;
    my $lost = 0;
    $app->wait_for("$class: the first have left", sub { defined $app->ask or $lost++; $app->count('safe exit after max_requests \(\d+\)') >= 2 });
    is $lost, 0, 'none lost';
    my @left = $app->log_text =~ /safe exit after max_requests \((\d+)\)/g;
    ok !grep({ $_ < 3 } @left), "not before three each: @left";
    my ($first, $second) = $app->log_text =~ /server \(pid (\d+)\) started/g;
    like $app->log_text, qr/pid $second\) started.*pid $first\) exited with status 0/s, 'the replacement was there before the first left';
    is $app->stop, 0;
}

my $app = Managed->new(class => "${base}::MaxRequests", env => { PM_MAX_REQUESTS => 2 }, key => { n_processes => 1 });
$app->up;
$app->wait_for('PM_MAX_REQUESTS', sub { $app->ask; $app->log_text =~ /safe exit after max_requests \(\d+\)/ });
is $app->stop, 0;

# Many requests: not all workers at once.
$app = Managed->new(class => "${base}::MaxRequests", key => { n_processes => 4, max_requests => 100, jitter => 30 });
$app->up;
my $served = shares($app, 300);
$app->wait_for('several have left', sub { $served->{ $app->ask // 'lost' }++; $app->count('safe exit after max_requests') >= 4 });
my @left = $app->log_text =~ /safe exit after max_requests \((\d+)\)/g;
ok !grep({ $_ < 69 } @left), "none before jitter below the number: @left";
my %distinct = map { $_ => 1 } @left;
cmp_ok scalar keys %distinct, '>', 1, 'not the same number for all';
ok !$served->{lost}, 'none lost';
is $app->stop, 0;

# A number that is set in the worker is the class's own matter, and exact.
(my $own = $Managed::LOOP) =~ s/(\$pm->pm_manage;)/$1 \$pm->pm_parameter(max_requests => 3);/ or die;
$app = Managed->new(program => $own, key => { n_processes => 1 });
$app->up;
$served = shares($app, 11);
ok !$served->{lost}, 'a limit set in the worker: none lost';
is_deeply [sort { $b <=> $a } values %$served], [3, 3, 3, 2], 'three each (one went to see whether it is up)' or diag explain $served;
like $app->log_text, qr/^FastCGI: server \(pid \d+\): safe exit after max_requests \(3\)$/m;
is $app->stop, 0;

# Memory: the manager looks, with nothing else set. A worker grows by 40 MB; the cap is 60 MB.
for (["${base}::Constrained", 60 * 1024], ["${base}::MaxSize", 60]) {
    my ($class, $cap) = @$_;
    $app = Managed->new(class => $class, key => { n_processes => 2, max_size => $cap, sample_interval => '50ms' });
    $app->up;
    my %grown;
    $app->wait_for("$class: one that is too large is replaced", sub { $grown{ $app->ask('grow=20') // 0 }++; my $log = $app->log_text;
        grep { $log =~ /server \(pid $_\) exited with status 0/ } keys %grown });
    ok !$grown{0}, 'no request lost';
    is $app->stop, 0;
}

# And the worker itself, every second request; the manager would need hours.
$app = Managed->new(class => "${base}::Constrained", env => { PM_SIZECHECK_NUM_REQUESTS => 2, PM_MAX_SIZE => 60 * 1024 },
    key => { n_processes => 1, sample_interval => '1h' });
$app->up;
$app->ask('grow=100') for 1 .. 2;
$app->wait_for('sizecheck_num_requests', sub { $app->log_text =~ /memory limits exceeded after \d+ requests/ });
is $app->stop, 0;

# Dynamic: grows under load, shrinks without killing, and pm_loop ends a loop.
my $loop = $Managed::LOOP;
$loop =~ s/while \(\$request->Accept >= 0\)/while (\$pm->pm_loop && \$request->Accept >= 0)/ or die;
$app = Managed->new(class => "${base}::Dynamic", program => $loop,
    key => { n_processes => 1, min_nproc => 1, max_nproc => 6, delta_nproc => 1, delta_time => 1, sample_interval => '50ms' });
$app->up;
$app->wait_for('Dynamic: n_processes when nobody asks', sub { $app->workers == 1 });
my @busy = map { $app->send_request('sleep=1') } 1 .. 5;
$app->wait_for('grows', sub { $app->workers >= 5 });
is scalar(grep { $app->answer_of($_) =~ /pid/ } @busy), 5, 'all answered';
$app->wait_for('shrinks', sub { $app->workers <= 2 });
unlike $app->log_text, qr/exited with status [1-9]/, 'nobody was killed';
is $app->stop, 0;

# An ordinary option of the pool is a key.
$app = Managed->new(key => { n_processes => 1, max_lifetime => '1s', sample_interval => '50ms', jitter => 0 });
$app->up;
my ($first) = $app->workers;
$app->wait_for('max_lifetime', sub { my $now = $app->ask; $now && $now != $first });
is $app->stop, 0;

done_testing;
