package Managed;

# A managed program in a folder of its own, for the tests of FCGI::Guard::ProcManager: started, asked, signalled, ended.
use strict;
use warnings;
use File::Temp ();
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Test::More ();
use Time::HiRes qw(sleep time);

# Nothing may take longer than this; it only says "hung".
use constant HUNG => 60;

# A request loop as most programs have it; $class, @key come from the test.
our $LOOP = <<'LOOP';
use Time::HiRes 'time';
my $socket  = FCGI::OpenSocket($ENV{TEST_SOCKET}, 511);
my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%ENV, $socket, FCGI::FAIL_ACCEPT_ON_INTR());
my $pm = $class->new({ n_processes => 2, @key });
$pm->pm_manage;
while ($request->Accept >= 0) {
    $pm->pm_pre_dispatch;
    my ($what, $for) = split /=/, $ENV{QUERY_STRING} || '';
    # A signal must not cut it short.
    if (($what || '') eq 'sleep') { my $end = time + $for; while ((my $left = $end - time) > 0) { select undef, undef, undef, $left } }
    # From when until when a test knows: no clock is between.
    if (($what || '') eq 'hold') {
        { open my $held, '>', "held.$for.new" or die; syswrite $held, $$ }
        rename "held.$for.new", "held.$for" or die;
        select undef, undef, undef, 0.02 until -e "go.$for";
    }
    our @hoard; push @hoard, 'x' x ($for * 1024 * 1024) if ($what || '') eq 'grow';
    print "Content-Type: text/plain\r\n\r\npid $$ of @{[getppid]}\n";
    $request->Finish;
    $pm->pm_post_dispatch;
}
print STDERR "loop of $$ ended\n";
LOOP

# new(program => TEXT, class => NAME, key => {...}, env => {...}, args => [...]); the text sees $class and @key.
sub new {
    my ($class, %given) = @_;
    my $dir = File::Temp::tempdir(CLEANUP => 1);
    my $self = bless {
        class => 'FCGI::Guard::ProcManager', program => $LOOP, key => {}, env => {}, args => [],
        dir => $dir, path => "$dir/app.sock", %given, owner => $$,
    }, $class;
    $self->{path} = "127.0.0.1:$self->{port}" if $self->{port};
    open my $out, '>', "$dir/app.pl" or die $!;
    print {$out} "use strict; use warnings; use FCGI; use $self->{class};\n",
        "my \$class = '$self->{class}'; my \@key = \%{ +do './key.pl' };\n", $self->{program};
    close $out;
    require Data::Dumper;
    my $text = do { local $Data::Dumper::Terse = 1; Data::Dumper::Dumper($self->{key}) };
    $text = $self->{key_text} if $self->{key_text};
    open my $key, '>', "$dir/key.pl" or die $!;
    print {$key} $text;
    close $key;
    my $files = $self->{files} || {};
    for my $name (keys %$files) {
        open my $file, '>', "$dir/$name" or die $!;
        print {$file} $files->{$name};
        close $file;
    }
    return $self->start;
}

sub start {
    my ($self) = @_;
    my $pid = fork // die $!;
    if (!$pid) {
        chdir $self->{dir} or POSIX::_exit(99);
        open STDIN,  '<',  '/dev/null';
        open STDOUT, '>>', 'out';
        open STDERR, '>>', 'log';
        # Close what the test holds: a worker must not inherit its sockets.
        POSIX::close($_) for 3 .. 63;
        $ENV{TEST_SOCKET} = $self->{port} ? ":$self->{port}" : $self->{path};
        # The same program on the FCGI interface of this distribution: t/native.
        $ENV{PERL5OPT} = '-MFCGI::Guard=:fcgi' if $ENV{TEST_NATIVE};
        $ENV{$_} = $self->{env}{$_} for keys %{ $self->{env} };
        my @command = $self->{command} ? @{ $self->{command} } : ('app.pl', @{ $self->{args} });
        my @limit = $self->{nofile} ? ('/bin/sh', '-c', "ulimit -n $self->{nofile}; exec \"\$@\"", 'sh') : ();
        exec @limit, $^X, (map { "-I$_" } grep { !ref } @INC), @command or POSIX::_exit(98);
    }
    $self->{pid} = $pid;
    delete $self->{status};
    return $self;
}

sub log_text {
    my ($self) = @_;
    open my $in, '<', "$self->{dir}/log" or return '';
    local $/;
    return scalar(<$in>) // '';
}

sub count { my ($self, $re) = @_; my $n = () = $self->log_text =~ /$re/g; return $n }

# Waits until the test is true (ok) or long past hope (not ok, with the log).
sub wait_for {
    my ($self, $what, $test, $quiet) = @_;
    my $end = time + HUNG;
    while (time < $end) {
        if ($test->()) { Test::More::pass($what) if !$quiet; return 1 }
        sleep 0.02;
    }
    Test::More::fail($what);
    Test::More::diag($self->log_text);
    return 0;
}

sub up {
    my ($self) = @_;
    my $all = $self->{key}{start_delay} ? 1 : $self->{key}{n_processes} // 2;
    return $self->wait_for('the pool serves', sub { $self->workers >= $all && $self->ask }, 1);
}

sub connect_to {
    my ($self) = @_;
    return $self->{port}
        ? IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 5)
        : IO::Socket::UNIX->new(Peer => $self->{path});
}

# One request by hand, so that nothing of ours is between. ask() waits for the answer: the worker's pid; send_request()
# gives the connection back.
sub send_request {
    my ($self, $query, %more) = @_;
    my $c = $self->connect_to or return;
    $c->autoflush(1);
    my %param = (REQUEST_METHOD => 'GET', QUERY_STRING => $query // '', SCRIPT_NAME => '', REQUEST_URI => '/', SERVER_NAME => 'test',
        SERVER_PORT => 80, SERVER_PROTOCOL => 'HTTP/1.1', PATH_INFO => '/', %more);
    my $pairs = join '', map { pack('CC', length $_, length $param{$_}) . $_ . $param{$_} } sort keys %param;
    local $SIG{PIPE} = 'IGNORE';
    syswrite $c, pack('CCnnCC', 1, 1, 1, 8, 0, 0) . pack('nC x5', 1, 0) . pack('CCnnCC', 1, 4, 1, length $pairs, 0, 0) . $pairs
        . pack('CCnnCC', 1, 4, 1, 0, 0, 0) . pack('CCnnCC', 1, 5, 1, 0, 0, 0);
    return $c;
}

# A request that is in a worker's hands now, and ends with release(); the connection, the request's number and the worker.
my $held = 0;

sub hold {
    my ($self) = @_;
    my $n = ++$held;
    my $c = $self->send_request("hold=$n") or return;
    my $pid;
    $self->wait_for("request $n is held", sub { open my $in, '<', "$self->{dir}/held.$n" or return; $pid = <$in> }, 1);
    return ($c, $n, $pid);
}

sub release { my ($self, $n) = @_; open my $go, '>', "$self->{dir}/go.$n" or die $!; return }

sub answer_of {
    my ($self, $c) = @_;
    my $all = '';
    my $end = time + HUNG;
    while (time < $end) {
        vec(my $bits = '', fileno $c, 1) = 1;
        select(my $ready = $bits, undef, undef, 1) > 0 or next;
        sysread $c, $all, 8192, length $all or last;
        # END_REQUEST is the end; a child of the worker may hold the connection open for longer.
        my ($at, $ended) = (0, 0);
        while (length($all) - $at >= 8) {
            my (undef, $type, undef, $length, $padding) = unpack 'CCnnC', substr $all, $at, 8;
            $at += 8 + $length + $padding;
            $ended = 1 if $type == 3 && $at <= length $all;
        }
        last if $ended;
    }
    # libfcgi waits up to 2 s for its peer to close.
    close $c;
    my $text = '';
    while (length $all >= 8) {
        my (undef, $type, undef, $length, $padding) = unpack 'CCnnC', $all;
        $text .= substr $all, 8, $length if $type == 6;
        substr $all, 0, 8 + $length + $padding, '';
    }
    return $text;
}

sub ask {
    my ($self, $query, %more) = @_;
    my $c = $self->send_request($query, %more) or return;
    return $self->answer_of($c) =~ /pid (\d+)/ ? $1 : undef;
}

# So many requests from three clients at once while the code runs again and again. Returns how many had no whole answer.
sub load {
    my ($self, $requests, $code, $pause) = @_;
    pipe my $read, my $write or die $!;
    my @clients = map {
        my $pid = fork // die $!;
        if (!$pid) {
            my $lost = 0;
            for (1 .. $requests / 3) { defined $self->ask or $lost++ }
            syswrite $write, "$lost\n";
            POSIX::_exit(0);
        }
        $pid;
    } 1 .. 3;
    close $write;
    my %left = map { $_ => 1 } @clients;
    my $end = time + 4 * HUNG;
    while (%left && time < $end) {
        $code->();
        sleep($pause || 0.1);
        for my $pid (keys %left) { delete $left{$pid} if waitpid $pid, POSIX::WNOHANG() }
    }
    kill KILL => keys %left if %left;
    my $lost = 0;
    while (defined(my $line = readline $read)) { $lost += $line }
    return $lost + 1000 * keys %left;
}

# A real nginx in front; get() asks it. undef if there is no nginx here.
sub nginx {
    my ($self) = @_;
    my ($binary) = grep { -x } map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin';
    return if !$binary;
    my $dir  = $self->{dir};
    my $port = $self->{web} = do { IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1')->sockport };
    my $upstream = $self->{port} ? "127.0.0.1:$self->{port}" : "unix:$self->{path}";
    my $params = join ' ', map { "fastcgi_param $_;" } 'QUERY_STRING $query_string', 'REQUEST_METHOD $request_method', 'CONTENT_TYPE $content_type',
        'CONTENT_LENGTH $content_length', 'REQUEST_URI $request_uri', 'SERVER_PROTOCOL $server_protocol', 'SERVER_NAME $server_name',
        'SERVER_PORT $server_port', 'REMOTE_ADDR $remote_addr', 'PATH_INFO $document_uri', 'SCRIPT_NAME ""';
    my $user = $> == 0 ? 'user root;' : '';
    open my $out, '>', "$dir/nginx.conf" or die $!;
    print {$out} "$user daemon off; pid $dir/nginx.pid; error_log $dir/nginx.log; events { }\n",
        'http { access_log off; ', (map { "${_}_temp_path $dir/$_; " } qw(client_body fastcgi proxy scgi uwsgi)),
        "upstream app { server $upstream; keepalive 4; } server { listen 127.0.0.1:$port; ",
        "location / { $params fastcgi_pass app; fastcgi_keep_conn @{[$self->{keep} ? 'on' : 'off']}; } } }\n";
    close $out;
    my $pid = fork // die $!;
    if (!$pid) { open STDERR, '>>', "$dir/nginx.log"; exec $binary, '-p', $dir, '-c', "$dir/nginx.conf" or POSIX::_exit(98) }
    $self->{nginx} = $pid;
    return $self->wait_for('nginx is up', sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) }, 1);
}

# Status and body of an HTTP request through nginx.
sub get {
    my ($self, $uri, $body) = @_;
    my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{web}, Timeout => 5) or return (0, '');
    print {$c} defined $body ? "POST $uri HTTP/1.0\r\nContent-Length: @{[length $body]}\r\n\r\n$body" : "GET $uri HTTP/1.0\r\n\r\n";
    my $all = do { local $/; local $SIG{ALRM} = sub { die "no answer\n" }; alarm HUNG; my $t = eval { readline $c }; alarm 0; $t // '' };
    my ($head, $text) = split /\r\n\r\n/, $all, 2;
    return (($head // '') =~ /^HTTP\S+ (\d+)/ ? $1 : 0, $text // '');
}

sub workers {
    my ($self) = @_;
    return split ' ', do { open my $in, '<', "/proc/$self->{pid}/task/$self->{pid}/children" or return; local $/; <$in> // '' };
}

sub alive { my (undef, $pid) = @_; return 0 if !kill 0 => $pid; open my $in, '<', "/proc/$pid/stat" or return 0; return <$in> !~ /\) Z/ }

sub title { my (undef, $pid) = @_; open my $in, '<', "/proc/$pid/cmdline" or return ''; local $/; (my $t = <$in> // '') =~ s/\0.*//s; return $t }

sub signal { my ($self, $name) = @_; return kill $name => $self->{pid} }

# The exit status of the manager (as $? has it), -1 if it hangs.
sub wait_end {
    my ($self) = @_;
    return $self->{status} if defined $self->{status};
    my $end = time + HUNG;
    while (time < $end) {
        return $self->{status} = $? if waitpid($self->{pid}, POSIX::WNOHANG()) > 0;
        sleep 0.02;
    }
    Test::More::diag("the manager does not end\n" . $self->log_text);
    return -1;
}

sub stop { my ($self, $name) = @_; $self->signal($name || 'TERM'); return $self->wait_end }

sub DESTROY {
    my ($self) = @_;
    return if $$ != $self->{owner};
    local $?;
    if ($self->{nginx}) { kill TERM => $self->{nginx}; waitpid $self->{nginx}, 0 }
    return if defined $self->{status};
    kill KILL => $self->workers, $self->{pid};
    waitpid $self->{pid}, 0;
    return;
}

1;
