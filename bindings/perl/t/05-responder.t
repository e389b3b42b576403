use strict;
use warnings;
use lib 't/lib';
use Test::More;
use File::Temp 'tempdir';
use FcgiClient qw(request start_request read_answer wait_for spawn_perl stop slurp);
use FCGI::Guard;
use POSIX ();

my $dir = tempdir(CLEANUP => 1);
my $log = "$dir/log";
my $number = 0;

sub start {
    my ($code, @switch) = @_;
    my $path = "$dir/" . ++$number . '.sock';
    return ($path, spawn_perl($path, $log, $code, @switch));
}

# The whole interface in one program, on descriptor 0.
my ($path, $pid) = start(<<'END');
use FCGI::Guard;
my $loop = FCGI::Guard->responder(keep_idle => '5s');
$SIG{USR1} = sub { print STDERR "usr1 in $$\n" };
$SIG{TERM} = sub { $loop->leave };
my $old;
while (my $request = $loop->accept) {
    my $p    = $request->params;
    my $what = $p->{SCRIPT_NAME} || '/';
    if ($what eq '/params') { $request->print("\n", map { "$_=$p->{$_}\n" } sort keys %$p) }
    elsif ($what eq '/param') { $request->print("\n", $request->param('A'), defined $request->param('B') ? 'b' : '-') }
    elsif ($what eq '/keep') { push @kept, $p; $request->print("\n", join ' ', map { $_->{A} } @kept) }
    elsif ($what eq '/echo') {
        my $count = $request->read(my $body, $p->{CONTENT_LENGTH});
        $request->print("\n$count\n", $body);
    }
    elsif ($what eq '/pieces') {
        my ($body, $pieces) = ('', 0);
        while (my $count = $request->read($body, 1000, length $body)) { $pieces++ }
        $request->print("\n", length $body, " in $pieces");
    }
    elsif ($what eq '/lines') {
        local $/ = $p->{SEPARATOR} eq 'undef' ? undef : $p->{SEPARATOR} =~ /^\d+$/ ? \"$p->{SEPARATOR}" : $p->{SEPARATOR};
        my @lines;
        while (defined(my $line = $request->getline)) { push @lines, $line }
        $request->print("\n", join '|', @lines);
    }
    elsif ($what eq '/error') { $request->error("to the ", "log\n"); $request->print("\nok") }
    elsif ($what eq '/status') { $request->print("\n"); $request->finish(7); next }
    elsif ($what eq '/wide') {
        eval { $request->print("\x{263a}") };
        $request->print("\n", ref $@, ' ', $@->name, ' ', eval { "\xe9" . substr "\x{263a}", 1 });
    }
    elsif ($what eq '/over') {
        eval { $old->print('x') };
        $request->print("\n", $@->name);
    }
    elsif ($what eq '/fork') {
        my $child = fork;
        if (!$child) { eval { $request->print('from the child') }; print STDERR 'child: ', $@->name, "\n"; exit 3 }
        waitpid $child, 0;
        $request->print("\nthe child left with ", $? >> 8);
    }
    elsif ($what eq '/drop') { $request->print("\ndropped") ; undef $request; next }
    elsif ($what eq '/die') { $request->print("\nhalf"); eval { die "oh\n" } ; $request->error($@) }
    elsif ($what eq '/file') {
        open my $in, '<', $p->{FILE}; $request->print("\n"); my $size = -s $in; $request->send_file(fileno($in), 2, $size - 2);
    }
    elsif ($what eq '/cut') {
        my $ok = eval { $request->read(my $body, 100); 1 };
        print STDERR 'cut: ', $ok ? 'taken for whole' : $@->name, "\n";
    }
    elsif ($what eq '/data') { $request->read(my $b, 100); $request->read_data(my $d, 100); $request->print("\n", $request->role, " $b $d") }
    elsif ($what eq '/system') { system 'true'; $request->print("\n$?") }
    $old = $request;
    eval { $request->finish };
}
print STDERR "left\n";
END

sub body_of { my $got = request($path, @_); return undef if !$got || !$got->{ended}; $got->{stdout} =~ s/^.*?\n//s; $got->{stdout} }

ok wait_for(sub { defined body_of() }), 'it answers' or diag slurp($log);
is body_of(params => { SCRIPT_NAME => '/params', A => 'x', B => '' }), "A=x\nB=\nREQUEST_METHOD=GET\nSCRIPT_NAME=/params\n", 'params';
is body_of(params => { SCRIPT_NAME => '/params', C => "\xe9\0\n" }), "C=\xe9\0\n\nREQUEST_METHOD=GET\nSCRIPT_NAME=/params\n",
    'nothing of the request before is left, and values are bytes';
is body_of(params => { SCRIPT_NAME => '/params', map { ("N$_" => $_) } 1 .. 200 }), join('', map { "N$_=$_\n" } sort 1 .. 200)
    . "REQUEST_METHOD=GET\nSCRIPT_NAME=/params\n", 'many params';
is body_of(params => { SCRIPT_NAME => '/params', A => 1 }), "A=1\nREQUEST_METHOD=GET\nSCRIPT_NAME=/params\n", 'few after many';
# Equal names: the client above cannot send them.
# The hash to be used again has three names, as many as there are pairs.
for my $turn (1 .. 4) {
    body_of(params => { SCRIPT_NAME => '/params', A => 1 });
    my $pair = FcgiClient::params(A => 1) . FcgiClient::params(A => 2) . FcgiClient::params(SCRIPT_NAME => '/params');
    my $c = IO::Socket::UNIX->new(Peer => $path);
    syswrite $c, FcgiClient::record(1, pack('nC x5', 1, 0)) . FcgiClient::record(4, $pair) . FcgiClient::record(4, '') . FcgiClient::record(5, '');
    is read_answer($c)->{stdout}, "\nA=2\nSCRIPT_NAME=/params\n", "of equal names the last wins, and nothing is left behind them ($turn)";
}
is body_of(params => { SCRIPT_NAME => '/param', A => 'one' }), 'one-', 'one param';
body_of(params => { SCRIPT_NAME => '/keep', A => $_ }) for 1 .. 4;
is body_of(params => { SCRIPT_NAME => '/keep', A => 5 }), '1 2 3 4 5', 'a kept hash stays as it was';

for my $size (0, 1, 16_384, 1_048_576) {
    my $sent = join '', map { chr(($_ * 7) % 256) } 1 .. $size % 1024 || 1024;
    $sent = substr $sent x (1 + $size / length $sent), 0, $size;
    my $got = body_of(params => { SCRIPT_NAME => '/echo', CONTENT_LENGTH => $size }, body => $sent);
    ok defined $got && $got eq "$size\n$sent", "a body of $size bytes comes back";
}
{
    # Apache sends the end of STDIN after the body, and answers 503 if it cannot.
    my $c = start_request($path, params => { SCRIPT_NAME => '/echo', CONTENT_LENGTH => 4 }, body => undef);
    syswrite $c, FcgiClient::record(5, 'body');
    is read_answer($c)->{stdout}, "\n4\nbody", 'a body is complete by its length';
    select undef, undef, undef, 0.05;
    local $SIG{PIPE} = 'IGNORE';
    ok defined(syswrite $c, FcgiClient::record(5, '')), 'and the end of its stream may come later' or diag $!;
}
is body_of(params => { SCRIPT_NAME => '/pieces' }, body => 'x' x 10_001), '10001 in 11', 'reading in pieces, at an offset';
my $text = "\n\none\ntwo\n\n\n\nthree b";
for (["\n", "\n|\n|one\n|two\n|\n|\n|\n|three b"], ['undef', $text], ['', "one\ntwo\n\n|three b"], [5, "\n\none|\ntwo\n|\n\n\nth|ree b"],
     ['o', "\n\no|ne\ntwo|\n\n\n\nthree b"], ["e\n", "\n\none\n|two\n\n\n\nthree b"]) {
    my ($separator, $want) = @$_;
    (my $name = $separator) =~ s/\n/\\n/g;
    is body_of(params => { SCRIPT_NAME => '/lines', SEPARATOR => $separator }, body => $text), $want, "lines by '$name'";
}
is request($path, params => { SCRIPT_NAME => '/error' })->{stderr}, "to the log\n", 'error goes to STDERR';
is request($path, params => { SCRIPT_NAME => '/status' })->{app_status}, 7, 'the application status';
is body_of(params => { SCRIPT_NAME => '/wide' }), "FCGI::Guard::Error invalid_argument \xe9", 'a wide character dies, an upgraded byte is a byte';
is body_of(params => { SCRIPT_NAME => '/over' }), 'no_request', 'a request that is over';
is body_of(params => { SCRIPT_NAME => '/fork' }), 'the child left with 3', "a child neither answers nor ends its parent's request";
like slurp($log), qr/^child: wrong_process$/m, 'and is told why';
is body_of(params => { SCRIPT_NAME => '/drop' }), 'dropped', 'a dropped request is finished';
is request($path, params => { SCRIPT_NAME => '/die' })->{stderr}, "oh\n", 'die in a request';
is body_of(params => { SCRIPT_NAME => '/system' }), '0', 'a program is started in a request';
is body_of(params => { SCRIPT_NAME => '/data' }, role => 3, body => 'body', data => 'data'), '3 body data', 'a filter';
{
    open my $out, '>', "$dir/file" or die $!;
    print $out '..', 'x' x 200_000;
    close $out;
    ok body_of(params => { SCRIPT_NAME => '/file', FILE => "$dir/file" }) eq 'x' x 200_000, 'a file';
}
{
    my $c = start_request($path, params => { SCRIPT_NAME => '/cut', CONTENT_LENGTH => 100 }, body => undef);
    syswrite $c, FcgiClient::record(5, 'half');
    close $c;
    ok wait_for(sub { slurp($log) =~ /^cut: aborted$/m }), 'half a body is an error' or diag slurp($log);
}
kill USR1 => $pid;
ok wait_for(sub { slurp($log) =~ /^usr1 in $pid$/m }), 'a signal handler runs while it waits';
is body_of(params => { SCRIPT_NAME => '/param', A => 'still' }), 'still-', 'and it goes on';
is stop($pid), 0, 'leave from a handler ends the wait';
like slurp($log), qr/^left$/m, 'and the loop';

# By address; a descriptor; wrong ones.
for (["listen => '$dir/own.sock'", "$dir/own.sock"], ['fd => \*STDIN'], ['fd => 0']) {
    my ($option, $at) = @$_;
    my ($given, $server) = start("use FCGI::Guard; my \$l = FCGI::Guard->responder($option); while (my \$r = \$l->accept) { \$r->print(qq(\\nhere)) }");
    $at ||= $given;
    ok wait_for(sub { my $got = request($at); $got && $got->{stdout} eq "\nhere" }), $option or diag slurp($log);
    stop($server);
}
for (['listen => "nonsense"', 'invalid_address'], ['fd => 99', 'invalid_descriptor'], ['nothing => 1', 'unknown_option'],
     ['keep_idle => "soon"', 'invalid_option']) {
    my ($option, $name) = @$_;
    eval "FCGI::Guard->responder($option)";
    is ref $@ && $@->name, $name, "$option: $name";
}

# In a worker of a pool.
my $manager = fork // die $!;
if (!$manager) {
    open STDERR, '>>', $log;
    my $pool = FCGI::Guard::Pool->new(listen => "unix:$dir/pool.sock", workers => 2, max_requests => 20);
    $pool->manage or POSIX::_exit($pool->exit_code);
    my $loop = FCGI::Guard->responder(pool => $pool);
    while (my $request = $loop->accept) {
        select undef, undef, undef, $request->param('SLEEP') || 0;
        $request->print("\npid $$");
        $request->finish;
    }
    POSIX::_exit(0);
}
ok wait_for(sub { my $got = -S "$dir/pool.sock" && request("$dir/pool.sock"); $got && $got->{ended} }), 'a pool with loops of ours' or diag slurp($log);
my %pids;
my $lost = 0;
my $turn = 0;
wait_for(sub {
    for (1 .. 10) {
        my $got = request("$dir/pool.sock");
        $got && $got->{ended} ? $pids{ $got->{stdout} }++ : $lost++;
    }
    kill HUP => $manager if ++$turn == 5;
    return $turn > 20 && keys %pids >= 6;
});
is $lost, 0, 'max_requests and HUP lose nothing';
cmp_ok scalar(keys %pids), '>=', 6, 'workers were replaced: ' . keys %pids;
my $slow = start_request("$dir/pool.sock", params => { SLEEP => 0.5 });
select undef, undef, undef, 0.1;
kill TERM => $manager;
like read_answer($slow)->{stdout}, qr/^\npid \d+$/, 'TERM waits for the request in flight';
my $status;
ok wait_for(sub { my $found = waitpid $manager, POSIX::WNOHANG(); $status = $?; $found }), 'the pool ends';
is $status, 0, 'with 0';
kill KILL => $manager if !defined $status;

done_testing;
