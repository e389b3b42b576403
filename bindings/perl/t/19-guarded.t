use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Cwd 'abs_path';
use Managed;

# A program that brings a manager of its own, run by `fcgiguard run`, which is one already: ours steps aside, so every worker is
# fcgiguard's child, and a reload loses nothing. Beside it FCGI::ProcManager under each worker; fcgiguard says that it is there.
my ($guard) = grep { defined && -x } $ENV{FCGIGUARD}, '../../target/release/fcgiguard', map { "$_/fcgiguard" } split /:/, $ENV{PATH};
$guard or plan skip_all => 'the command fcgiguard is not here: FCGIGUARD names it';
$guard = abs_path($guard);
my ($plackup) = grep { -x } map { "$_/plackup" } split /:/, $ENV{PATH};

my %lib = (PERL5LIB => join ':', grep { !ref } map { -d $_ ? abs_path($_) : $_ } @INC);
my $psgi = 'sub { [200, ["Content-Type", "text/plain"], ["pid $$ of @{[getppid]}"]] }';

# fcgiguard in the place of the program.
sub guarded {
    my ($env, $files, @command) = @_;
    my @run = ($guard, 'run', '--listen', 'unix:app.sock', '--workers', 2, '--stop-timeout', '5s', '--', @command);
    return Managed->new(env => { %lib, %$env }, files => $files, command => ['-e', 'exec @ARGV', '--', @run]);
}

sub children { my ($pid) = @_; open my $in, '<', "/proc/$pid/task/$pid/children" or return; return split ' ', <$in> // '' }

my %case;
SKIP: {
    skip 'Plack is not installed', 1 if !$plackup || !eval { require Plack::Handler::FCGI; 1 };
    my @plackup = ($plackup, '-s', 'FCGI', '-E', 'production');
    %case = (
        'plackup, our manager'             => [{}, @plackup, '--manager', 'FCGI::Guard::ProcManager', 'app.psgi'],
        'plackup as it is, :fcgi'          => [{ PERL5OPT => '-MFCGI::Guard=:fcgi' }, @plackup, 'app.psgi'],
        'plackup as it is, replaced'       => [{ PERL5OPT => '-MFCGI::Guard::ProcManager=replace' }, @plackup, 'app.psgi'],
        'plackup, its limits as a subclass' => [{}, @plackup, '--manager', 'FCGI::Guard::ProcManager::Dynamic', 'app.psgi'],
    );
}
$case{'a plain loop'} = [{}, $^X, 'loop.pl'];
my $loop = "use strict; use warnings; use FCGI; use FCGI::Guard::ProcManager;\nmy (\$class, \@key) = ('FCGI::Guard::ProcManager');\n$Managed::LOOP";
$loop =~ s/^my \$socket .*$/my \$socket = 0;/m or die;

for my $name (sort keys %case) {
    my ($env, @command) = @{ $case{$name} };
    my $app = guarded($env, { 'app.psgi' => $psgi, 'loop.pl' => $loop }, @command);
    $app->up;
    $app->wait_for("$name: both are ready", sub { $app->count('ready after') >= 2 });
    my @workers = $app->workers;
    is_deeply [map { children($_) } @workers], [], "$name: no manager under the worker";
    my $pid = $app->ask;
    ok scalar(grep { $_ == $pid } @workers), 'who answers is the child of fcgiguard';
    is $app->load(600, sub { $app->signal('HUP') }, 0.5), 0, 'reload under load: none lost';
    $app->wait_for('a reload is done', sub { $app->log_text =~ /reload done/ });
    unlike $app->log_text, qr/a process that a worker started/, 'nothing to warn of';
    is $app->stop, 0, 'ends';
    unlike $app->log_text, qr/KILLed/, 'without a KILL' or diag $app->log_text;
}

# A worker whose preload fails: the code is the program's own, and fcgiguard's `fatal_codes` ends the pool by it.
(my $broken = $loop) =~ s/n_processes => 2,/n_processes => 2, preload => ['No::Such::Module'], give_up_code => 78,/ or die;
my $app = Managed->new(env => {%lib}, files => { 'loop.pl' => $broken }, command => ['-e', 'exec @ARGV', '--',
    $guard, 'run', '--listen', 'unix:app.sock', '--workers', 1, '--fatal-codes', 78, '--', $^X, 'loop.pl']);
is $app->wait_end >> 8, 78, 'preload that fails, under fcgiguard';
like $app->log_text, qr/preload failed: Can't locate/, 'says why';

# Not a worker's own process: a child that it starts later is no worker, and manages as ever.
$app = guarded({}, { 'loop.pl' => <<'CODE', 'own.pl' => "use FCGI;\n$loop" =~ s/socket = 0/socket = FCGI::OpenSocket('own.sock', 50)/r }, $^X, 'loop.pl');
use FCGI;
if (!fork) { open STDIN, '<', '/dev/null'; exec $^X, 'own.pl' }
my $request = FCGI::Request();
while ($request->Accept >= 0) { print "\npid $$" }
CODE
$app->wait_for('a program that a worker starts has its own manager', sub { $app->log_text =~ /FastCGI: manager \(pid \d+\): server \(pid \d+\) started/ });
my @own = $app->log_text =~ /FastCGI: manager \(pid (\d+)\): initialized/g;
kill TERM => @own;
$app->wait_for('which ends', sub { !grep { $app->alive($_) } @own });
is $app->stop, 0;

SKIP: {
    skip 'Plack with FCGI::ProcManager is not installed', 1 if !$case{'plackup as it is, :fcgi'} || !eval { require FCGI::ProcManager; 1 };
    my $app = guarded({}, { 'app.psgi' => $psgi }, $plackup, '-s', 'FCGI', '-E', 'production', 'app.psgi');
    $app->wait_for('beside it, FCGI::ProcManager under each worker: fcgiguard says so', sub { $app->ask; $app->count('a process that a worker started') >= 2 });
    diag 'beside it, FCGI::ProcManager: ', scalar(map { children($_) } $app->workers), ' processes under 2 workers, ', $app->count('ready after'), ' ever ready';
    my @all = map { ($_, children($_)) } $app->workers;
    $app->stop;
    kill KILL => grep { $app->alive($_) } @all;
    $app = guarded({}, { 'app.psgi' => $psgi }, $plackup, '-s', 'FCGI', '-E', 'production', '--manager', '', 'app.psgi');
    $app->up;
    is_deeply [map { children($_) } $app->workers], [], 'and --manager "" stops it, with nothing of ours in the program';
    is $app->stop, 0;
}

done_testing;
