use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Cwd 'abs_path';
use Digest::MD5 'md5_hex';
use File::Temp 'tempdir';
use FcgiClient qw(wait_for spawn stop slurp);
use HTTP::Tiny;
use IO::Socket::INET;

# The same programs, run on FCGI.pm and FCGI::ProcManager ("theirs"), with PERL5OPT=-MFCGI::Guard=:fcgi ("ours"), and with our
# manager too ("managed"), behind nginx and Apache: the same answers, their messages in the web server's log, the manager's lines in
# theirs. Programs and servers that are not installed are left out, by name.
delete @ENV{ grep { /_proxy$/i } keys %ENV };
sub found { my ($name) = @_; my ($path) = grep { -x } map { "$_/$name" } split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin'; $path }
sub has { my ($module) = @_; system("$^X -M$module -e1 >/dev/null 2>&1") == 0 }

has('FCGI') && has('FCGI::ProcManager') or plan skip_all => 'FCGI.pm and FCGI::ProcManager are needed to compare with';
my ($nginx, $apache) = (found('nginx'), found('apache2') || found('httpd'));
my ($modules) = grep { -e "$_/mod_proxy_fcgi.so" } qw(/usr/lib/apache2/modules /usr/lib64/httpd/modules /usr/lib/httpd/modules);
$nginx || ($apache && $modules) or plan skip_all => 'neither nginx nor Apache is installed';

my $dir  = tempdir(CLEANUP => 1);
my $apps = abs_path('t/apps');
chmod 0755, $dir;
my @inc = map { abs_path($_) } grep { !ref && -d } @INC;
my $plackup = found('plackup');
my %programs;
$programs{'cgi-fast'} = [$^X, "$apps/cgi-fast.pl"] if has('CGI::Fast');
for (['plack', 'Plack::Request'], ['dancer', 'Dancer2'], ['mojo', 'Mojolicious::Lite']) {
    my ($name, $module) = @$_;
    $programs{$name} = [$^X, $plackup, '-s', 'FCGI', '-E', 'deployment', '--nproc', 1, '--listen', undef, '-a', "$apps/$name.psgi"] if $plackup && has($module);
}
if (found('catalyst.pl') && has('Catalyst') && has('Catalyst::Plugin::Static::Simple')) {
    system("cd $dir && catalyst.pl TestCatalyst >$dir/catalyst.log 2>&1");
    my $root = "$dir/TestCatalyst/lib/TestCatalyst/Controller/Root.pm";
    if (-e $root) {
        require File::Copy;
        File::Copy::copy("$apps/CatalystRoot.pm", $root);
        $programs{catalyst} = [$^X, "$dir/TestCatalyst/script/testcatalyst_fastcgi.pl", '-n', 1, '-l', undef];
    }
}
diag 'left out: ', join ' ', grep { !$programs{$_} } qw(cgi-fast plack dancer mojo catalyst) if keys %programs < 5;

sub free_port { my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die $!; $s->sockport }

my %opt = (theirs => '', ours => '-MFCGI::Guard=:fcgi', managed => '-MFCGI::Guard=:fcgi -MFCGI::Guard::ProcManager=replace');
my @sides = qw(theirs ours managed);

# Start every program on each.
my (@pids, %pid, @sites);
for my $name (sort keys %programs) {
    for my $side (@sides) {
        my $site = "$name-$side";
        my $path = "$dir/$site.sock";
        my @command = map { defined $_ ? $_ : $path } @{ $programs{$name} };
        local $ENV{PERL5LIB} = join ':', @inc;
        local $ENV{PERL5OPT} = $opt{$side};
        # The one that is given its socket as descriptor 0; the others make their own.
        my $pid = spawn($name eq 'cgi-fast' ? $path : "$dir/$site.unused", "$dir/$site.log",
            $name eq 'cgi-fast' ? @command : ('sh', '-c', 'exec "$@" </dev/null', 'sh', @command));
        push @pids, $pid;
        $pid{$site} = $pid;
        push @sites, $site;
    }
}
for my $site (@sites) {
    wait_for(sub { -S "$dir/$site.sock" }) or BAIL_OUT("$site does not start: " . slurp("$dir/$site.log"));
    chmod 0777, "$dir/$site.sock";
}

my %web;
if ($nginx) {
    my $port = free_port();
    my $servers = join '', map { my $site = $_; <<"END" } @sites;
  server { listen 127.0.0.1:$port; server_name $site.test;
    location / { fastcgi_pass unix:$dir/$site.sock; client_max_body_size 8m;
      fastcgi_param REQUEST_METHOD \$request_method; fastcgi_param REQUEST_URI \$request_uri; fastcgi_param SCRIPT_NAME "";
      fastcgi_param PATH_INFO \$uri; fastcgi_param QUERY_STRING \$query_string; fastcgi_param CONTENT_TYPE \$content_type;
      fastcgi_param CONTENT_LENGTH \$content_length; fastcgi_param SERVER_PROTOCOL \$server_protocol;
      fastcgi_param SERVER_NAME \$server_name; fastcgi_param SERVER_PORT 80; fastcgi_param REMOTE_ADDR \$remote_addr; } }
END
    open my $out, '>', "$dir/nginx.conf" or die $!;
    my $user = $> == 0 ? 'user root;' : '';
    print $out "$user daemon off; worker_processes 1; pid $dir/nginx.pid; error_log $dir/nginx.log info; events {}\n",
        "http { access_log off; ", (map { "${_}_temp_path $dir/$_;" } qw(client_body fastcgi proxy uwsgi scgi)), "\n$servers}\n";
    close $out;
    push @pids, spawn("$dir/nginx.unused", "$dir/nginx.out", $nginx, '-c', "$dir/nginx.conf", '-p', $dir, '-e', "$dir/nginx.log");
    $web{nginx} = $port;
}
if ($apache && $modules) {
    my $port = free_port();
    open my $out, '>', "$dir/apache.conf" or die $!;
    print $out "ServerRoot $dir\nServerName localhost\nListen 127.0.0.1:$port\nPidFile $dir/apache.pid\nErrorLog $dir/apache.log\nMutex file:$dir\n",
        ($> == 0 ? "User www-data\nGroup www-data\n" : ''),
        map { -e "$modules/mod_$_.so" ? "LoadModule ${_}_module $modules/mod_$_.so\n" : '' } qw(unixd mpm_event authz_core proxy proxy_fcgi);
    print $out "<VirtualHost *:$port>\nServerName $_.test\nProxyPass / \"unix:$dir/$_.sock|fcgi://$_/\"\n"
        . "ProxyFCGISetEnvIf \"true\" SCRIPT_NAME \"\"\n</VirtualHost>\n" for @sites;
    close $out;
    push @pids, spawn("$dir/apache.unused", "$dir/apache.out", $apache, '-f', "$dir/apache.conf", '-D', 'FOREGROUND');
    $web{apache} = $port;
}
for my $server (sort keys %web) {
    wait_for(sub { IO::Socket::INET->new("127.0.0.1:$web{$server}") })
        or BAIL_OUT("$server does not start: " . slurp("$dir/$server.out") . slurp("$dir/$server.log"));
}

sub ask {
    my ($server, $site, $method, $path, %opt) = @_;
    my $http = HTTP::Tiny->new(timeout => 30, max_redirect => 0);
    my $got = $http->request($method, "http://$site.test:$web{$server}$path", { peer => '127.0.0.1', %opt });
    return { status => $got->{status}, body => $got->{content}, map { $_ => $got->{headers}{$_} } qw(content-type x-test x-sum location) };
}

my $small = join '', map { chr(($_ * 131) % 256) } 1 .. 16_384;
my $large = $small x 64;
my @asked = (
    ['GET', '/?a=1&b=2', headers => { 'X-Ask' => 'something' }],
    ['GET', '/text'],
    ['GET', '/gone'],
    ['GET', '/go'],
    ['POST', '/form', content => 'b=two&a=one', headers => { 'Content-Type' => 'application/x-www-form-urlencoded' }],
    ['POST', '/echo', content => $small, headers => { 'Content-Type' => 'application/octet-stream' }],
    ['POST', '/echo', content => $large, headers => { 'Content-Type' => 'application/octet-stream' }],
    ['GET', '/'],
);
for my $server (sort keys %web) {
    for my $name (sort keys %programs) {
        my ($wrong, $first) = (0);
        wait_for(sub { ask($server, "$name-$_", 'GET', '/')->{status} == 200 }) for @sides;
        for my $asked (@asked, $name =~ /plack|catalyst/ ? ['GET', '/stream'] : ()) {
            my ($method, $path, @more) = @$asked;
            my %got = map { $_ => ask($server, "$name-$_", $method, $path, @more) } @sides;
            my $what = "$name behind $server: $method $path" . ($method eq 'POST' ? ' of ' . length { @more }->{content} : '');
            # A megabyte is not for the screen.
            for (values %got) { $_->{body} = length($_->{body}) . ' bytes, ' . md5_hex($_->{body}) if length $_->{body} > 2000 }
            for my $side (@sides[1 .. $#sides]) {
                is_deeply $got{$side}, $got{theirs}, "$what: $got{$side}{status}, the same, $side";
                is $got{$side}{'x-sum'}, md5_hex({ @more }->{content}), '  the whole body came' if $path eq '/echo';
                is $got{$side}{status}, 200, '  and it is what was meant' if $path !~ /gone|go$/;
            }
        }
        for my $side (@sides) {
            is ask($server, "$name-$side", 'GET', "/log?m=$name$side$server")->{status}, 200, "$name $side behind $server: a message";
            my $logs = sub { slurp("$dir/$server.log") };
            # Mojolicious prints to the real STDERR, which Plack leaves alone.
            $logs = sub { slurp("$dir/$name-$side.log") } if $name eq 'mojo';
            ok wait_for(sub { $logs->() =~ /to the log: $name$side$server/ }), '  is in the log' or diag "$name $side $server: ", substr($logs->(), -600);
        }
        my %died = map { $_ => ask($server, "$name-$_", 'GET', "/die?m=$name$_$server") } @sides;
        delete $_->{body} for values %died;
        for my $side (@sides[1 .. $#sides]) {
            is_deeply $died{$side}, $died{theirs}, "$name behind $server: die is $died{$side}{status}, $side";
            my $back;
            wait_for(sub { $back = ask($server, "$name-$side", 'GET', '/'); $back->{status} == 200 });
            is $back->{status}, 200, '  and it serves again';
        }
    }
}

# The lines of the managers: what FCGI::ProcManager says from start to end, ours says too.
sub manager_lines { my ($site) = @_; my %said = map { s/\d+/N/gr => 1 } slurp("$dir/$site.log") =~ /^FastCGI: (manager \(pid \d+\): .*)$/mg; return \%said }

for my $name (sort keys %programs) {
    for my $side (qw(theirs managed)) {
        kill TERM => $pid{"$name-$side"};
        wait_for(sub { slurp("$dir/$name-$side.log") =~ /dying: / });
    }
    my ($theirs, $managed) = map { manager_lines("$name-$_") } qw(theirs managed);
    # How a worker that died ended is its own matter; that it is told is the contract.
    s/exited with status N/exited/ for map { @$_ } my @said = map { [grep { !/sending TERM/ } sort keys %$_] } $theirs, $managed;
    my %ours = map { $_ => 1 } @{ $said[1] };
    cmp_ok scalar @{ $said[0] }, '>', 0, "$name: FCGI::ProcManager says something" or diag slurp("$dir/$name-theirs.log");
    is_deeply [grep { !$ours{$_} } @{ $said[0] }], [], "$name: our manager has all its lines" or diag slurp("$dir/$name-managed.log");
}

stop($_) for reverse @pids;
done_testing;
