package FcgiClient;
# A FastCGI client by hand, so that nothing of ours is on both sides of a test.
use strict;
use warnings;
use Exporter 'import';
use IO::Select;
use IO::Socket::UNIX;
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(request start_request read_answer wait_for spawn stop slurp spawn_perl);

sub record { my ($type, $content) = @_; pack('CCnnCC', 1, $type, 1, length $content, 0, 0) . $content }
sub length_of { $_[0] < 128 ? pack('C', $_[0]) : pack('N', $_[0] | 0x8000_0000) }

sub params {
    my %param = @_;
    return join '', map { length_of(length $_) . length_of(length $param{$_}) . $_ . $param{$_} } sort keys %param;
}

# Sends a request; the body may come later (body => undef leaves the stream open).
sub start_request {
    my ($path, %opt) = @_;
    my $c = IO::Socket::UNIX->new(Peer => $path) or return;
    my $body = exists $opt{body} ? $opt{body} : '';
    my %param = (REQUEST_METHOD => 'GET', %{ $opt{params} || {} });
    $param{CONTENT_LENGTH} = length $body if defined $body && length $body && !exists $param{CONTENT_LENGTH};
    my $out = record(1, pack('nC x5', $opt{role} || 1, 0)) . record(4, params(%param)) . record(4, '');
    if (defined $body) {
        $out .= record(5, $_) for unpack '(a65528)*', $body;
        $out .= record(5, '');
        if (defined $opt{data}) {
            $out .= record(8, $_) for unpack '(a65528)*', $opt{data};
            $out .= record(8, '');
        }
    }
    local $SIG{PIPE} = 'IGNORE';
    while (length $out) {
        my $count = syswrite $c, $out;
        last if !defined $count;
        substr $out, 0, $count, '';
    }
    return $c;
}

sub read_answer {
    my ($c, $timeout) = @_;
    my ($all, %got) = ('');
    @got{qw(stdout stderr)} = ('', '');
    my $end = time + ($timeout || 20);
    my $ready = IO::Select->new($c);
    while (time < $end) {
        while (length $all >= 8) {
            my (undef, $type, undef, $length, $padding) = unpack 'CCnnC', $all;
            last if length $all < 8 + $length + $padding;
            my $content = substr $all, 8, $length;
            substr $all, 0, 8 + $length + $padding, '';
            if    ($type == 6) { $got{stdout} .= $content }
            elsif ($type == 7) { $got{stderr} .= $content }
            elsif ($type == 3) {
                @got{qw(app_status protocol_status)} = unpack 'NC', $content;
                $got{ended}++;
            }
        }
        return \%got if $got{ended};
        next if !$ready->can_read(0.5);
        my $count = sysread $c, $all, 65536, length $all;
        last if !$count;
    }
    return \%got;
}

sub request {
    my ($path, %opt) = @_;
    my $c = start_request($path, %opt) or return;
    return read_answer($c, $opt{timeout});
}

sub slurp { open my $in, '<:raw', $_[0] or return ''; local $/; my $text = <$in>; defined $text ? $text : '' }

# Waits until a test is true; false when that takes too long.
sub wait_for {
    my ($test, $seconds) = @_;
    my $end = time + ($seconds || 15);
    while (time < $end) { return 1 if $test->(); sleep 0.02 }
    return 0;
}

# Starts a program with a listening socket as descriptor 0, as spawn-fcgi does. Ended by stop.
my %running;

sub spawn {
    my ($path, $log, @command) = @_;
    my $listen = IO::Socket::UNIX->new(Local => $path, Listen => 128) or die "$path: $!";
    my $pid = fork;
    die "fork: $!" if !defined $pid;
    if (!$pid) {
        open STDIN, '<&', $listen;
        open STDOUT, '>>', $log;
        open STDERR, '>>', $log;
        no warnings "exec";
        exec { $command[0] } @command;
        require POSIX;
        POSIX::_exit(9);
    }
    $running{$pid} = $$;
    return $pid;
}

# A piece of Perl as such a program, with the modules that this perl sees.
sub spawn_perl {
    my ($path, $log, $code, @switch) = @_;
    return spawn($path, $log, $^X, (map { "-I$_" } @INC), @switch, '-e', $code);
}

# Ends a program: its wait status, or undef if it had to be killed.
sub stop {
    my ($pid, $signal) = @_;
    delete $running{$pid};
    kill $signal || 'TERM', $pid;
    my $status;
    return $status if wait_for(sub { my $found = waitpid $pid, 1; $status = $?; $found }, 10);
    kill KILL => $pid;
    waitpid $pid, 0;
    return;
}

END {
    my $status = $?;
    stop($_, 'KILL') for grep { $running{$_} == $$ } keys %running;
    $? = $status;
}

1;
