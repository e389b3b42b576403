use strict;
use warnings;
use lib 't/lib';
use Test::More;
use File::Temp 'tempdir';
use IO::Socket::UNIX;
use FcgiClient qw(request start_request read_answer wait_for spawn_perl stop slurp rests);
use Config;

# Each program runs on FCGI.pm and on `:fcgi`, unchanged, and has to answer the same requests with the same bytes, STDERR
# and END. Where ours differs on purpose the test says so.
my $dir = tempdir(CLEANUP => 1);
my $has_peer = eval { require FCGI; 1 };
my $number = 0;

sub start {
    my ($code, $ours) = @_;
    my $name = "$dir/" . ++$number;
    return { path => "$name.sock", log => "$name.log", pid => spawn_perl("$name.sock", "$name.log", $code, $ours ? '-MFCGI::Guard=:fcgi' : '-MFCGI') };
}

sub loop_of { my ($body, $request) = @_; "use strict; use warnings; my \$req = " . ($request || 'FCGI::Request()') . "; while (\$req->Accept >= 0) { $body }" }

# An answer in a form that can be compared; process ids are not the same.
sub shown {
    my ($got) = @_;
    return 'no answer' if !$got;
    return join '|', map { my $v = defined $got->{$_} ? $got->{$_} : '-'; $v =~ s/\b(at) \S+ line \d+/$1 HERE/g; "$_=$v" } qw(stdout stderr protocol_status ended);
}

# All of them, and at last what the program wrote to its log. "left" there is waited for if the program says it.
sub answers {
    my ($ours, $code, @requests) = @_;
    @requests = ({}) if !@requests;
    my $server = start($code, $ours);
    my @answers = map { shown(request($server->{path}, timeout => 10, %$_)) } @requests;
    wait_for(sub { slurp($server->{log}) =~ /left/ }, 5) if $code =~ /left\\n/;
    stop($server->{pid});
    push @answers, slurp($server->{log});
    s/\b(at) \S+ line \d+/$1 HERE/g for $answers[-1];
    return @answers;
}

sub same {
    my ($name, $code, @requests) = @_;
    @requests = ({}) if !@requests;
    my %answers = map { $_ => [answers($_, $code, @requests)] } $has_peer ? (0, 1) : 1;
    SKIP: {
        skip 'FCGI.pm is not installed', 1 if !$has_peer;
        is_deeply $answers{1}, $answers{0}, "$name: the same as on FCGI.pm";
    }
    return @{ $answers{1} };
}

my %post = (params => { REQUEST_METHOD => 'POST', SCRIPT_NAME => '/x' });
my $text = "line one\nline two\n\n\nlast";

my @got = same('%ENV', loop_of('print "\n", map { "$_=$ENV{$_};" } sort keys %ENV'), { params => { A => 1, B => 2 } }, { params => { A => 3 } });
is $got[1], "stdout=\nA=3;FCGI_ROLE=RESPONDER;REQUEST_METHOD=GET;|stderr=|protocol_status=0|ended=1", 'nothing of the request before is left';
same('an environment of its own', loop_of('print "\n", map { "$_=$env{$_};" } sort keys %env', 'FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \my %env)'),
    { params => { A => 1, B => 2 } }, { params => { C => "\xe9" } });
same('programs get %ENV', loop_of('$ENV{NEW} = 5; print "\n", `/bin/sh -c "echo \$A \$NEW \$REQUEST_METHOD"`'), { params => { A => 'x y' } }, {});
my ($by_name) = answers(1, 'my $r = FCGI::Request(STDIN, STDOUT, STDERR); while ($r->Accept >= 0) { print "\nhere ", ref tied *STDOUT }');
like $by_name, qr/\nhere FCGI::Stream/, 'handles by name';
same('IO::Handle objects', 'use IO::Handle; my ($i, $o, $e) = map { IO::Handle->new } 1 .. 3; my %e; my $r = FCGI::Request($i, $o, $e, \%e);
    while ($r->Accept >= 0) { $o->autoflush(1); binmode $o; $o->print("\n", $o->can("print") ? 1 : 0); print {$o} $i->getline; my $l = <$i>; print {$o} $l; $e->print("err\n"); $r->Finish }',
    { %post, body => $text }, { %post, body => $text });
same('lines', loop_of('print "\n"; while (<STDIN>) { print "[$_]" } print eof(STDIN) ? "end" : "more"'), { %post, body => $text }, { %post, body => '' });
same('slurp', loop_of('local $/; my $all = <STDIN>; print "\n", $all'), { %post, body => "one\ntwo\n" });
same('getc, eof, read', loop_of('print "\n", getc STDIN; my $n = read STDIN, my $b, 4; print "$n$b"; $n = read STDIN, $b, 3, 6; print $n, unpack "H*", $b;
    $n = sysread STDIN, $b, 1000; print $n; print eof STDIN ? "e" : "m"; $n = read STDIN, $b, 5; print $n'), { %post, body => $text });
same('printf, syswrite, write methods', loop_of('printf "\n%s-%03d", "a", 7; syswrite STDOUT, "abcdef", 3, 1; syswrite STDOUT, "xyz"; STDOUT->print("io"); STDOUT->printf("%x", 255)'));
same('$, and $\\', loop_of('local ($, , $\) = ("-", "!"); print "\n", 1, 2'));
same('undef and numbers', loop_of('no warnings; print "\n", undef, 1.5, -3, 1e3'));
same('STDERR, warn', loop_of('print STDERR "in ", "pieces "; print STDERR "and prints\n"; print "\nok"; print STDERR "to the log\n"; warn "warned\n"'), {}, {});
same('warn with a handler', loop_of('local $SIG{__WARN__} = sub { print "caught @_" }; print "\n"; warn "w\n"'));
same('die in eval', loop_of('print "\n"; eval { die "oh\n" }; print $@'));
same('text', loop_of('use utf8; my $t = "\x{263a} \x{e9}"; utf8::encode(my $e = $t); print "Content-Type: text/plain; charset=utf-8\n\n$e"; my $l = "\x{e9}"; utf8::upgrade($l); print $l'));
same('wide characters go out as UTF-8', loop_of('local $SIG{__WARN__} = sub { }; print "\n\x{263a}"; printf "%s\x{263a}", 1; { use bytes; print "\x{263a}" }'));
same('utf8 warnings can be made to die', loop_of('use warnings FATAL => "utf8"; print "\n"; print eval { print "\x{263a}"; 1 } ? "printed" : "died"'));
same('layers are without effect', loop_of('binmode STDOUT, ":utf8"; print "\n\xe9"'));
same('local *STDOUT', loop_of('{ local *STDOUT; open STDOUT, ">", \my $b or die; print "into the string"; close STDOUT; print STDERR $b } print "\nafter"'), {}, {});
same('Finish within local *STDOUT', loop_of('print "\nbefore"; { local *STDOUT; open STDOUT, ">", \my $b or die; $req->Finish; print "x" }'), {}, {});
same('select', loop_of('open my $h, ">", \my $b; my $old = select $h; print "x"; select $old; print "\n$b"'));
same('Detach and Attach', loop_of('print "\none"; $req->Detach; { no warnings; print STDOUT "real\n"; STDOUT->flush } print STDERR "real error\n"; $req->Attach; print "two"'), {}, {});
same('Finish ends it', loop_of('print "\none"; $req->Finish; print STDERR "after\n"; $req->Finish'), {}, {});
same('Accept without Finish', loop_of('print "\n", ++$main::n; next'), {}, {});
same('LastCall', loop_of('print "\n", ++$main::n; $req->LastCall') . ' print STDERR "left\n";');
same('close STDOUT', loop_of('print "\none"; close STDOUT; { no warnings; print "two" } print STDERR "three\n"'), {}, {});
same('the body is not read', loop_of('print "\nok"'), { %post, body => 'x' x 300_000 }, { %post, body => 'y' });
same('handles, environment, kind', loop_of('print "\n", join ",", map { ref } $req->GetHandles, $req->GetEnvironment; print $req->IsFastCGI, ref $req, fileno STDOUT, FCGI::FAIL_ACCEPT_ON_INTR, FCGI::FAIL_ACCEPT_ON_INTR()'));
same('system in a request', loop_of('print "\n"; $req->Detach; system "echo from the program"; $req->Attach; print $?'), {}, {});
same('exec in a child', loop_of('print "\n"; my $p = fork; if (!$p) { $req->Detach; exec "/bin/true" } waitpid $p, 0; print $?'), {}, {});
same('_exit in a child', loop_of('print "\n"; my $p = fork; if (!$p) { require POSIX; POSIX::_exit(3) } waitpid $p, 0; print $? >> 8'), {}, {});
same('many sizes', loop_of('my $n = $ENV{N}; print "\n", "x" x $n; print "end"'), map { { params => { N => $_ } } } 0, 1, 8183, 8184, 65_527, 65_528, 65_536, 1_000_000);
same('echo of 1 MB', loop_of('local $/; print "\n", <STDIN>'), { %post, body => join '', map { chr($_ % 256) } 1 .. 1_048_576 }, { %post, body => 'z' x 16_384 });
same('OpenSocket', 'my $s = FCGI::OpenSocket("' . "$dir/o.sock" . '", 5); print STDERR $s > 2 ? "open\n" : "no\n"; my $r = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%ENV, $s);
    print STDERR $r->IsFastCGI, "\n"; FCGI::CloseSocket($s); $r = FCGI::Request(); while ($r->Accept >= 0) { print "\nok" }');
same('a second request object', 'my ($a, $b) = map { FCGI::Request() } 1, 2; $a->Accept; print "\na"; $a->Finish; $b->Accept; print "\nb"; $b->Finish;', {}, {});
same('die in a request', loop_of('print "\nhalf"; die "the end\n"'));
same('exit in a request', loop_of('print "\nhalf"; exit 3') . ' END { print STDERR "END block\n" }');
same('the object goes', '{ my $r = FCGI::Request(); $r->Accept; print "\ngone" } print STDERR "left\n"; sleep 30');

# Signals: what becomes of a program that waits, and whether it still answers.
for my $signal (qw(USR1 PIPE TERM HUP)) {
    for my $handler ($signal eq 'HUP' ? ('', 'HUP') : '') {
        for my $flags (0, 1) {
            my %end;
            for my $ours ($has_peer ? (0, 1) : 1) {
                my $server = start("my \$r = FCGI::Request(\\*STDIN, \\*STDOUT, \\*STDERR, \\%ENV, 0, $flags); "
                    . ($handler ? "\$SIG{$handler} = sub { print STDERR qq(handler\\n) }; " : '')
                    . 'while ($r->Accept >= 0) { print "\nok"; $r->Finish } print STDERR "left\n"; exit 4', $ours);
                request($server->{path});
                rests($server->{pid});
                kill $signal => $server->{pid};
                my $status;
                if (!rests($server->{pid})) { waitpid $server->{pid}, 0; $status = $? }
                $end{$ours} = defined $status ? "ended with $status" : 'answers ' . (request($server->{path})->{stdout} || 'nothing');
                stop($server->{pid}, 'KILL') if !defined $status;
            }
            my $name = "$signal" . ($handler eq $signal ? ', with a handler' : '') . ", flags $flags";
            (my $end = $end{1}) =~ s/\n/ /;
            ok $end, "$name: $end";
            SKIP: { skip 'FCGI.pm is not installed', 1 if !$has_peer; is $end{1}, $end{0}, "$name: as on FCGI.pm" }
        }
    }
}
{
    my $server = start('my $r = FCGI::Request(); while ($r->Accept >= 0) { print "\none"; require POSIX; POSIX::write(2, "begun\n", 6); select undef, undef, undef, $_ for (0.1) x 10; print "two" } exit 4', 1);
    my $c = start_request($server->{path});
    wait_for(sub { slurp($server->{log}) =~ /begun/ });
    kill TERM => $server->{pid};
    is read_answer($c)->{stdout}, "\nonetwo", 'TERM lets the request in hand end';
    is stop($server->{pid}), 4 << 8, 'and then the loop';
    $server = start('$SIG{USR1} = sub { print STDERR "mine\n" }; my $r = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%ENV, 0, 0); while ($r->Accept >= 0) { print "\nok"; $r->Finish }', 1);
    request($server->{path});
    kill USR1 => $server->{pid};
    ok wait_for(sub { slurp($server->{log}) eq "mine\n" }), 'a handler of the program runs while it waits';
    is request($server->{path})->{stdout}, "\nok", 'and it goes on';
    stop($server->{pid});
}
{
    # Linux interrupts a wait for several descriptors then, without a signal for anybody.
    my $server = start(loop_of('print "\nok"'), 1);
    my $silent = IO::Socket::UNIX->new(Peer => $server->{path});
    request($server->{path});
    rests($server->{pid});
    kill STOP => $server->{pid};
    wait_for(sub { slurp("/proc/$server->{pid}/stat") =~ /\) T / });
    kill CONT => $server->{pid};
    wait_for(sub { slurp("/proc/$server->{pid}/stat") !~ /\) T / });
    is +(request($server->{path}) || {})->{stdout}, "\nok", 'who is stopped and continued goes on waiting';
    stop($server->{pid});
}
for my $flags (0, 1) {
    my $server = start("my \$r = FCGI::Request(\\*STDIN, \\*STDOUT, \\*STDERR, \\%ENV, 0, $flags); \$SIG{TERM} = sub { \$r->LastCall }; "
        . 'while ($r->Accept >= 0) { print "\nok" } print STDERR "left\n"', 1);
    request($server->{path});
    is stop($server->{pid}), 0, "LastCall in a handler of TERM ends the wait, with flags $flags";
    is slurp($server->{log}), "left\n", 'and the loop';
}

# What FCGI.pm does otherwise, or not at all.
sub ours {
    my ($code, @request) = @_;
    my $server = start($code, 1);
    my $got = request($server->{path}, @request);
    my $status = stop($server->{pid});
    return ($got, slurp($server->{log}), $status);
}
my ($got, $log);
($got) = ours(loop_of('print "\n"; { local $/ = "e"; print join "|", <STDIN> }'), %post, body => $text);
is $got->{stdout}, "\nline| one|\nline| two\n\n\nlast", 'any $/';
($got) = ours(loop_of('local $/; print "\n", scalar <STDIN>'), %post, body => $text);
is $got->{stdout}, "\n$text", 'no $/';
($got) = ours(loop_of('print "\n$ENV{A}"'), params => { A => "a\0b" });
is $got->{stdout}, "\na\0b", 'any byte in a value';
($got) = ours(loop_of('print "\n"; { local $/ = ""; print join "|", <STDIN> }'), %post, body => $text);
is $got->{stdout}, "\nline one\nline two\n\n|last", 'paragraphs';
($got, $log) = ours(loop_of('print "\none"; if (!(my $p = fork)) { print STDERR "child\n"; exit } else { waitpid $p, 0 } print "two"'));
is $got->{stdout}, "\nonetwo", "a child's end does not end its parent's request";
is $log, "child\n", 'what it prints goes to the real handles';
($got) = ours(loop_of('print "\n"; my $p = open my $h, "-|"; if (!$p) { print "from the child"; exit } print <$h>'));
is $got->{stdout}, "\nfrom the child", 'a child that prints into a pipe';
($got) = ours(loop_of('print "\n"; $req->StartFilterData; print <STDIN>'), role => 3, body => 'body', data => 'data');
is $got->{stdout}, "\ndata", 'StartFilterData';
($got) = ours('package Other; sub TIEHANDLE { bless [] } sub PRINT { shift; push @o, @_; 1 } package main; ' . loop_of('print "\n"; my $t = tied *STDOUT; tie *STDOUT, "Other"; print "captured"; untie *STDOUT; tie *STDOUT, "FCGI::Stream", $t; print "back @Other::o"'));
is $got->{stdout}, "\nback captured", 'a stream tied again';
{
    my $server = start(loop_of('print "\none"; $req->Flush; select undef, undef, undef, $ENV{SLEEP}; print "two"'), 1);
    my $c = start_request($server->{path}, params => { SLEEP => 5 });
    ok(IO::Select->new($c)->can_read(4), 'Flush sends what there is');
    stop($server->{pid}, 'KILL');
}
{
    my $server = start(loop_of('$| = 1; print "\none"; select undef, undef, undef, $ENV{SLEEP}; print "two"'), 1);
    my $c = start_request($server->{path}, params => { SLEEP => 5 });
    ok(IO::Select->new($c)->can_read(4), 'so does $|');
    stop($server->{pid}, 'KILL');
}
{
    my $server = start(loop_of('read STDIN, my $b, 100 or print STDERR "cut\n"; my $n = read STDIN, $b, 100; $req->Detach; print STDERR defined $n ? "got $n\n" : "undef\n"; $req->Attach'), 1);
    my $c = start_request($server->{path}, params => { CONTENT_LENGTH => 100 }, body => undef);
    close $c;
    ok wait_for(sub { slurp($server->{log}) =~ /^undef$/m }), 'a body that is cut off is undef, not its end' or diag slurp($server->{log});
    is request($server->{path})->{ended}, 1, 'and the program goes on';
    stop($server->{pid});
}
{
    my $child = fork;
    die if !defined $child;
    if (!$child) {
        open STDERR, '>', "$dir/open.log";
        exec $^X, (map { "-I$_" } @INC), '-MFCGI::Guard=:fcgi', '-e', 'for (@ARGV) { eval { FCGI::OpenSocket($_, 5) }; print STDERR ref $@ ? $@->name : "no error", "\n" }',
            '/nonexistent/x', 'x' x 200, 'host.invalid:1';
    }
    waitpid $child, 0;
    is slurp("$dir/open.log"), "bind_failed\ninvalid_address\nunresolved_host\n", 'OpenSocket dies of what is wrong';
}
{
    local %ENV = (%ENV, REQUEST_METHOD => 'GET');
    open my $out, '-|', $^X, (map { "-I$_" } @INC), '-MFCGI::Guard=:fcgi', '-e',
        'my $r = FCGI::Request(); while ($r->Accept >= 0) { print "\nCGI $ENV{REQUEST_METHOD} ", $r->IsFastCGI, defined tied *STDOUT ? 1 : 0 } print " end"' or die;
    is join('', <$out>), "\nCGI GET 00 end", 'plain CGI';
}
SKIP: {
    skip 'FCGI.pm is not installed', 1 if !$has_peer;
    like `$^X @{[map { "-I$_" } @INC]} -MFCGI -e 'eval { require FCGI::Guard; FCGI::Guard->import(":fcgi") }; print \$\@'`, qr/FCGI\.pm is loaded already/, 'after FCGI.pm it is too late';
}
SKIP: {
    skip 'this perl has no threads', 2 if !$Config{useithreads};
    my $server = start('use threads; ' . loop_of('print "\n"; my $t = threads->create(sub { 6 * 7 }); print $t->join'), 1);
    is_deeply [map { request($server->{path})->{stdout} } 1, 2], ["\n42", "\n42"], 'a thread in a request';
    stop($server->{pid});
    $server = start('use threads; use IO::Handle; $_->join for map { threads->create(sub { my ($in, $out, $err, %env) = (IO::Handle->new, IO::Handle->new, IO::Handle->new);
        my $r = FCGI::Request($in, $out, $err, \%env); while ($r->Accept >= 0) { print {$out} "\nthread ", threads->tid; $r->Finish } }) } 1 .. 3', 1);
    is scalar(grep { my $got = request($server->{path}); $got && $got->{stdout} =~ /^\nthread [123]$/ } 1 .. 30), 30, 'a request object in each thread';
    stop($server->{pid}, 'KILL');
}

done_testing;
