use strict;
use warnings;
use lib 't/lib';
use Test::More;
use File::Temp 'tempdir';
use FcgiClient qw(request spawn_perl stop slurp wait_for);

# The memory of a worker after many requests is what it was after the first thousands. FCGIGUARD_REQUESTS says how many.
-r "/proc/$$/statm" or plan skip_all => 'there is no /proc';
my $requests = $ENV{FCGIGUARD_REQUESTS} || 20_000;
my $warm_up  = 3_000;
my $slack_kb = 256;

# What is measured is the worker.
sub managed { <<'END' }
use FCGI::Guard::ProcManager;
my $request = FCGI::Request();
my $pm = FCGI::Guard::ProcManager->new({ n_processes => 1 });
$pm->pm_manage;
while ($request->Accept >= 0) {
    $pm->pm_pre_dispatch if $ENV{KIND} != 2;
    my @lines = <STDIN>;
    print STDERR "error\n" if $ENV{KIND} == 3;
    print "\nok $ENV{KIND}";
    $request->Finish if $ENV{KIND} != 6;
    $pm->pm_post_dispatch if $ENV{KIND} != 4;
}
END

my %servers = (
    'the accept loop' => <<'END',
use FCGI::Guard;
my $loop = FCGI::Guard->responder;
while (my $request = $loop->accept) {
    my $p = $request->params;
    my $kind = $p->{KIND};
    $request->read(my $body, 100) if $kind == 1;
    while (defined(my $line = $request->getline)) { }
    eval { $request->print("\x{263a}") } if $kind == 2;
    $request->error("a ", "b\n") if $kind == 3;
    my %copy = %$p if $kind == 4;
    $request->print("\nok $kind", $request->param('KIND'));
    $kind == 5 ? undef $request : $request->finish;
    eval { $request->print('x') } if $kind == 6;
}
END
    ':fcgi with %ENV' => <<'END',
use FCGI::Guard ':fcgi';
my $request = FCGI::Request();
while ($request->Accept >= 0) {
    my $kind = $ENV{KIND};
    read STDIN, my $body, 100 if $kind == 1;
    my @lines = <STDIN>;
    { no warnings 'utf8'; print STDERR "\x{263a}" if $kind == 2 }
    print STDERR "a ", "b\n" if $kind == 3;
    $ENV{"NEW$kind"} = 'x' x 100 if $kind == 4;
    { local *STDOUT; open STDOUT, '>', \my $into; print 'x' }
    if ($kind == 5) { $request->Detach; $request->Attach }
    printf "\nok %d", $kind;
    $request->Finish if $kind != 6;
}
END
    'FCGI::Guard::ProcManager on :fcgi' => "use FCGI::Guard ':fcgi';" . managed(),
    # FCGI.pm itself is part of it.
    (eval { require FCGI; 1 } ? ('FCGI::Guard::ProcManager on FCGI.pm' => 'use FCGI;' . managed()) : ()),
    'FCGI::Guard::Pool on :fcgi' => <<'END',
use FCGI::Guard ':fcgi';
my $request = FCGI::Request();
my $pool = FCGI::Guard::Pool->new(workers => 1);
$pool->manage or exit $pool->exit_code;
while ($pool->accept($request)) {
    my @lines = <STDIN>;
    print STDERR "error\n" if $ENV{KIND} == 3;
    print "\nok $ENV{KIND}";
    $request->Finish if $ENV{KIND} != 6;
}
END
    ':fcgi with handles and a hash, a request object each time' => <<'END',
use FCGI::Guard ':fcgi';
use IO::Handle;
while (1) {
    my ($in, $out, $err, %env) = (IO::Handle->new, IO::Handle->new, IO::Handle->new);
    my $request = FCGI::Request($in, $out, $err, \%env);
    last if $request->Accept < 0;
    $out->print("\nok $env{KIND}");
    $err->print("error\n") if $env{KIND} == 2;
}
END
);

sub rss_kb {
    my ($pid) = @_;
    return (split ' ', slurp("/proc/$pid/statm"))[1] * 4;
}

my $dir = tempdir(CLEANUP => 1);
my $number = 0;
for my $name (sort keys %servers) {
    my $path = "$dir/" . ++$number . '.sock';
    my $pid  = spawn_perl($path, "$dir/log", $servers{$name});
    my $worker = $pid;
    if ($name =~ /ProcManager|Pool/) { wait_for(sub { ($worker) = split ' ', slurp("/proc/$pid/task/$pid/children"); $worker }, 30) or die "$name does not start\n", slurp("$dir/log") }
    my ($lost, $before) = (0);
    for my $turn (1 .. $warm_up + $requests) {
        $before = rss_kb($worker) if $turn == $warm_up;
        my $kind = $turn % 8;
        my %more = $kind == 7 ? (map { ("EXTRA_$_" => 'y' x ($turn % 100)) } 1 .. $turn % 90) : ();
        my $got = request($path, params => { KIND => $kind, HTTP_COOKIE => 'x' x ($turn % 500), %more }, body => $kind == 1 ? "line\n" x 50 : '');
        $lost++ if !$got || !$got->{ended} || $got->{stdout} !~ /^\nok $kind/;
        last if $lost > 10;
    }
    my $after = rss_kb($worker);
    is $lost, 0, "$name: $requests requests" or diag slurp("$dir/log");
    cmp_ok $after - $before, '<=', $slack_kb, "$name: memory went from $before to $after kB";
    stop($pid);
}
done_testing;
