use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Managed;
use Cwd 'abs_path';
use File::Temp 'tempdir';
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Socket;
use Time::HiRes qw(sleep time);

# FCGI::Guard::Manual as it is written: its files are those of examples/deploy, and with other paths and ports they work.
my $deploy = abs_path('examples/deploy');
sub slurp { my ($path) = @_; open my $in, '<', $path or die "$path: $!"; local $/; return scalar <$in> }

my $manual = slurp('lib/FCGI/Guard/Manual.pod');
for my $file (qw(app.service nginx.conf apache.conf)) {
    (my $text = slurp("$deploy/$file")) =~ s/^(?=.)/    /mg;
    ok index($manual, $text) >= 0, "the manual shows $file as it is";
}

my ($plackup) = grep { -x } map { "$_/plackup" } split /:/, $ENV{PATH};
$plackup && eval { require Plack::Handler::FCGI } or do { diag 'Plack is not installed'; done_testing; exit };

my $dir = tempdir(CLEANUP => 1);
chmod 0755, $dir;
my %own = ('/run/app/app.sock' => "$dir/app.sock", '/usr/bin/plackup' => "$^X $plackup");
sub own { my ($text) = @_; for my $from (keys %own) { $text =~ s/\Q$from\E/$own{$from}/g } return $text }

# The unit: its environment, its command line without a shell, in its working directory, with a supervisor's socket.
my $unit = slurp("$deploy/app.service");
my ($start) = own($unit) =~ /^ExecStart=(.*)$/m;
my ($env)   = $unit =~ /^Environment=(.*)$/m;
my ($reload) = $unit =~ m{^ExecReload=/bin/kill -(\w+) \$MAINPID$}m;
my ($upgrade) = $unit =~ /kill --kill-whom=main -s (\w+)/;
open my $psgi, '>', "$dir/app.psgi" or die $!;
print {$psgi} slurp("$deploy/app.psgi");
close $psgi;
socket my $notify, AF_UNIX, SOCK_DGRAM, 0 or die $!;
bind $notify, pack_sockaddr_un("$dir/notify") or die $!;
sub spawned { my ($code) = @_; my $pid = fork // die $!; return $pid if $pid; $code->(); POSIX::_exit(98) }
my $main = spawned(sub {
    my ($name, $value) = $env =~ /^(\w+)=(.*)$/;
    @ENV{$name, 'NOTIFY_SOCKET', 'PERL5LIB'} = ($value, "$dir/notify", join ':', map { abs_path($_) } grep { !ref && -d } @INC);
    chdir $dir;
    open STDERR, '>>', "$dir/log";
    exec split ' ', $start;
});
my %said;
sub heard { my ($word) = @_; while (defined recv $notify, my $text, 8192, MSG_DONTWAIT) { $said{$_}++ for split /\n/, $text } return $said{$word} }
sub await { my ($what, $test) = @_; my $end = time + 60; while (time < $end) { return pass $what if $test->(); sleep 0.05 } fail $what;
    diag slurp("$dir/log"); diag join ' ', glob "$dir/*"; diag slurp($_) for glob "$dir/*.log" }
await('the unit: READY is said', sub { heard('READY=1') });

sub free_port { my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!; return $s->sockport }
sub get { my ($port, $uri) = @_; my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5) or return '';
    print {$c} "GET $uri HTTP/1.0\r\nHost: localhost\r\n\r\n"; local $SIG{ALRM} = sub { die "no answer\n" }; alarm 30;
    my $all = eval { local $/; <$c> }; alarm 0; return $all // '' }

chmod 0777, "$dir/app.sock";
my (%web, @servers);
my ($nginx) = grep { -x } map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin';
if ($nginx && -e '/etc/nginx/fastcgi_params') {
    my $port = $web{nginx} = free_port();
    (my $text = own(slurp("$deploy/nginx.conf"))) =~ s/listen 80;/listen 127.0.0.1:$port;/ or die;
    open my $out, '>', "$dir/nginx.conf" or die $!;
    print {$out} $> == 0 ? 'user root; ' : '', "daemon off; pid $dir/nginx.pid; events { }\nhttp { access_log off; ",
        (map { "${_}_temp_path $dir/$_; " } qw(client_body fastcgi proxy scgi uwsgi)), "\n$text}\n";
    close $out;
    push @servers, spawned(sub { open STDERR, '>>', "$dir/nginx.log"; exec $nginx, '-p', $dir, '-e', "$dir/nginx.log", '-c', "$dir/nginx.conf" });
}
my ($apache) = grep { -x } '/usr/sbin/apache2', '/usr/sbin/httpd';
my ($modules) = grep { -e "$_/mod_proxy_fcgi.so" } qw(/usr/lib/apache2/modules /usr/lib64/httpd/modules);
if ($apache && $modules) {
    my $port = $web{Apache} = free_port();
    open my $out, '>', "$dir/apache.conf" or die $!;
    print {$out} "ServerRoot $dir\nServerName localhost\nListen 127.0.0.1:$port\nPidFile $dir/apache.pid\nErrorLog $dir/apache.log\nMutex file:$dir\n",
        $> == 0 ? "User www-data\nGroup www-data\n" : '',
        (map { -e "$modules/mod_$_.so" ? "LoadModule ${_}_module $modules/mod_$_.so\n" : '' } qw(unixd mpm_event authz_core proxy proxy_fcgi)),
        own(slurp("$deploy/apache.conf"));
    close $out;
    push @servers, spawned(sub { open STDERR, '>>', "$dir/apache.log"; open STDOUT, '>>', "$dir/apache.log"; exec $apache, '-f', "$dir/apache.conf", '-D', 'FOREGROUND' });
}
for my $server (sort keys %web) {
    await("$server answers", sub { get($web{$server}, '/some/page?a=b') =~ m{Hello from /some/page, process \d+} });
}

# Reload and upgrade as the manual says, while all servers ask.
sub asked_all { my $bad = 0; for my $server (keys %web) { get($web{$server}, '/x') =~ /Hello/ or $bad++ } return $bad }
sub log_has { my ($re) = @_; return slurp("$dir/log") =~ $re }
my $bad = 0;
kill $reload => $main;
await('reload', sub { $bad += asked_all(); log_has(qr/reload done/) });
(my $new = slurp("$deploy/app.psgi")) =~ s/Hello from/Hello again from/ or die;
open $psgi, '>', "$dir/app.psgi" or die $!;
print {$psgi} $new =~ s/Hello again/Hello, again,/r;
close $psgi;
kill $upgrade => $main;
if (%web) { await('upgrade', sub { $bad += asked_all(); !grep { get($web{$_}, '/x') !~ /Hello, again,/ } keys %web }) }
is $bad, 0, 'nothing was lost';
await('READY again', sub { heard('READY=1') >= 2 });
kill TERM => $main;
is waitpid($main, 0), $main, 'the same process ends';
is $?, 0, 'with 0';
for my $pid (@servers) { kill TERM => $pid; waitpid $pid, 0 }

done_testing;
