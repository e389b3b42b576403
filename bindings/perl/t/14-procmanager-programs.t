use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Managed;
use Time::HiRes qw(sleep time);

# Programs as they are, behind a real nginx: only the name of the manager is another one, or not even that.
my $ours    = 'FCGI::Guard::ProcManager';
my $replace = { PERL5OPT => "-M$ours=replace" };

my ($plackup) = grep { -x } map { "$_/plackup" } split /:/, $ENV{PATH};

sub has { my ($module) = @_; return eval "require $module; 1" }

sub through_nginx {
    my ($app, $what, $uri, $expected) = @_;
    if (!$app->nginx) { pass "$what: no nginx here"; return }
    my ($status, $text) = $app->get($uri);
    is $status, 200, "$what: through nginx" or diag $app->log_text;
    like $text, $expected, "$what: the answer";
    my %by;
    my $bad = 0;
    for my $n (1 .. 60) {
        $app->signal('HUP') if $n % 20 == 0;
        my ($code, $body) = $app->get($uri);
        $bad++ if $code != 200;
        $by{$1}++ if $body =~ /pid (\d+)/;
    }
    is $bad, 0, "$what: reload loses nothing through nginx" or diag $app->log_text;
    $app->wait_for("$what: the reload is done", sub { $app->log_text =~ /reload done/ });
    is $app->stop, 0, "$what: ends";
    return;
}

# What PERL5LIB a program needs to find this build.
my %lib = (PERL5LIB => join ':', grep { !ref } @INC);

SKIP: {
    skip 'Plack is not installed', 1 if !has('Plack::Handler::FCGI');
    my $psgi = 'my $app = sub { [200, ["Content-Type", "text/plain"], ["psgi pid $$ ", $_[0]{"psgi.multiprocess"} ? "many" : "one"]] };';
    skip 'no plackup', 1 if !$plackup;
    for my $case (['--manager', { %lib }, '--manager', $ours], ['replaced', { %lib, %$replace }], ['a subclass of limits', { %lib }, '--manager', "${ours}::Constrained"]) {
        my ($name, $env, @more) = @$case;
        my $app = Managed->new(files => { 'app.psgi' => $psgi }, env => $env, keep => $name eq 'replaced',
            command => [$plackup, '-s', 'FCGI', '-E', 'production', '--listen', 'app.sock', '--nproc', 2, '--pid', 'app.pid', @more, 'app.psgi']);
        $app->up;
        $app->wait_for("plackup, $name: its manager", sub { $app->log_text =~ /^FastCGI: manager \(pid $app->{pid}\): server \(pid \d+\) started$/m });
        through_nginx($app, "plackup, $name", '/', qr/psgi pid \d+ many/);
    }
    # A worker that asks for its own end after the answer (psgix.harakiri).
    my $app = Managed->new(files => { 'app.psgi' => 'sub { $_[0]{"psgix.harakiri.commit"} = 1; [200, [], ["pid $$"]] }' }, env => {%lib},
        command => [$plackup, '-s', 'FCGI', '-E', 'production', '--listen', 'app.sock', '--nproc', 2, '--manager', $ours, 'app.psgi']);
    $app->up;
    my %seen;
    $seen{ $app->ask // 'lost' }++ for 1 .. 10;
    ok !$seen{lost}, 'harakiri: nothing lost';
    is $seen{$_}, 1, 'one request each' for keys %seen;
    $app->wait_for('and says so', sub { $app->log_text =~ /safe exit with harakiri/ });
    is $app->stop, 0;
}

SKIP: {
    skip 'CGI::Fast is not installed', 1 if !has('CGI::Fast');
    my $text = <<'CODE';
use CGI::Fast;
my $pm = CLASS->new({ n_processes => 3 });
$pm->pm_manage;
while (my $q = CGI::Fast->new) {
    $pm->pm_pre_dispatch;
    select undef, undef, undef, 0.01;    # so long that one worker alone would have all sixty for seconds
    print $q->header('text/plain'), "cgi pid $$ ", $q->param('a') || '', "\n";
    $pm->pm_post_dispatch;
}
CODE
    # FCGI_SOCKET_PATH: each worker would bind; here the manager does.
    for my $class ($ours, 'FCGI::ProcManager') {
        my %env = (FCGI_SOCKET_PATH => 'app.sock', FCGI_LISTEN_QUEUE => 100, $class eq $ours ? () : %$replace, %lib);
        (my $program = $text) =~ s/CLASS/$class/;
        my $app = Managed->new(env => \%env, files => { 'fast.pl' => "use $class;\n$program" }, command => ['fast.pl']);
        $app->up;
        is $app->workers, 3, 'CGI::Fast with FCGI_SOCKET_PATH: every worker lives';
        my %pids;
        $pids{$_}++ for map { $app->answer_of($_) =~ /pid (\d+)/ } map { $app->send_request } 1 .. 60;
        cmp_ok scalar keys %pids, '>', 1, 'and they share the work';
        through_nginx($app, "CGI::Fast, $class", '/?a=b', qr/cgi pid \d+ b/);
    }
    # FCGI_SOCKET_PATH not set: descriptor 0.
    my $app = Managed->new(env => {%lib}, files => { 'fast.pl' => "use $ours;\n" . $text =~ s/CLASS/$ours/r }, command => ['-e', <<'CODE']);
use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Local => 'app.sock', Listen => 100) or die $!;
POSIX::dup2(fileno $s, 0) // die; close $s; exec $^X, (map { "-I$_" } @INC), 'fast.pl';
BEGIN { require POSIX }
CODE
    $app->up;
    through_nginx($app, 'CGI::Fast on descriptor 0', '/?a=c', qr/cgi pid \d+ c/);
    # The functional style of its documentation.
    (my $functions = $text) =~ s/my \$pm = CLASS->new\(\{ n_processes => 3 \}\);\n//;
    $functions =~ s/\$pm->pm_manage/pm_manage(n_processes => 2)/;
    $functions =~ s/\$pm->(pm_\w+)/$1()/g;
    $app = Managed->new(env => { %lib, FCGI_SOCKET_PATH => 'app.sock' }, command => ['fast.pl'],
        files => { 'fast.pl' => "use $ours qw(pm_manage pm_pre_dispatch pm_post_dispatch);\n$functions" });
    $app->up;
    through_nginx($app, 'functions', '/?a=d', qr/cgi pid \d+ d/);
}

SKIP: {
    skip 'Catalyst is not installed', 1 if !has('Catalyst') || !has('Catalyst::ScriptRole');
    my $files = { 'MyApp.pm' => <<'APP', 'myapp_fastcgi.pl' => "use lib '.'; use Catalyst::ScriptRunner; Catalyst::ScriptRunner->run('MyApp', 'FastCGI');" };
package MyApp;
use Moose;
extends 'Catalyst';
__PACKAGE__->config(name => 'MyApp', home => '.', disable_component_resolution_regex_fallback => 1);
$INC{'MyApp/Controller/Root.pm'} = 1;
{ package MyApp::Controller::Root; use Moose; BEGIN { extends 'Catalyst::Controller' }
  __PACKAGE__->config(namespace => '');
  sub default : Path { my ($self, $c) = @_; $c->res->content_type('text/plain'); $c->res->body("catalyst pid $$ " . ($c->req->param('a') || '')) } }
__PACKAGE__->setup;
1;
APP
    for my $case (["-M $ours", { %lib }, '-M', $ours], ['replaced', { %lib, %$replace }]) {
        my ($name, $env, @more) = @$case;
        my $app = Managed->new(files => $files, env => { %$env, CATALYST_DEBUG => 0 },
            command => ['myapp_fastcgi.pl', '-l', 'app.sock', '-n', 2, '-p', 'app.pid', @more]);
        $app->up;
        ok -e "$app->{dir}/app.pid", 'Catalyst: its pid file';
        through_nginx($app, "Catalyst, $name", '/?a=e', qr/catalyst pid \d+ e/);
    }
}

SKIP: {
    skip 'Mojolicious is not installed', 1 if !$plackup || !has('Mojolicious::Lite') || !has('Plack::Handler::FCGI');
    my $app = Managed->new(env => {%lib}, files => { 'mojo.psgi' => 'use Mojolicious::Lite; get "/" => sub { $_[0]->render(text => "mojo pid $$") }; app->start("psgi");' },
        command => [$plackup, '-s', 'FCGI', '-E', 'production', '--listen', 'app.sock', '--nproc', 2, '--manager', $ours, 'mojo.psgi']);
    $app->up;
    through_nginx($app, 'Mojolicious', '/', qr/mojo pid \d+/);
}

# Subclasses of the program's own, on the replaced name, with all they override.
my $app = Managed->new(env => {%$replace}, class => 'FCGI::ProcManager', program => <<'CODE' . $Managed::LOOP);
package Site::Manager;
use parent -norequire, 'FCGI::ProcManager';
sub sig_manager { my ($this, $name) = @_; print STDERR "site sig_manager $name\n"; $this->SUPER::sig_manager($name) }
sub pm_die { my ($this, $msg, $status) = @_; print STDERR "site pm_die $msg\n"; $this->SUPER::pm_die($msg, $status) }
sub pm_notify { my ($this, $msg) = @_; $this->SUPER::pm_notify("site: $msg") }
sub pm_change_process_name { my ($this, $name) = @_; $this->SUPER::pm_change_process_name("site-$name") }
package main;
$class = 'Site::Manager';
CODE
$app->up;
is $app->title($app->{pid}), 'site-perl-fcgi-pm', 'a subclass of FCGI::ProcManager, replaced: its process names';
is scalar(grep { $app->title($_) eq 'site-perl-fcgi' } $app->workers), 2;
through_nginx($app, 'subclass', '/', qr/pid \d+/);
like $app->log_text, qr/$_/ for qr/^FastCGI: manager \(pid \d+\): site: initialized$/m, qr/^site sig_manager HUP$/m, qr/^site pm_die safe exit from signal TERM$/m;

done_testing;
