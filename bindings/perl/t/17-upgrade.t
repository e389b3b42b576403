use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Managed;
use IO::Socket::INET;
use Time::HiRes qw(sleep time);

# USR2: what the parent has loaded is loaded anew, in the same process, with the same sockets. With FCGI.pm, and with `:fcgi`.
sub free_port { my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!; return $s->sockport }

sub install { my ($app, $text) = @_; open my $out, '>', "$app->{dir}/Site.pm.new" or die $!; print {$out} $text; close $out;
    rename "$app->{dir}/Site.pm.new", "$app->{dir}/Site.pm" or die $! }

sub version { my ($n) = @_; return "package Site; sub version { '$n' } 1;" }

(my $loop = "use lib '.'; use Site;\n$Managed::LOOP") =~ s/pid \$\$ of/version \@{[Site::version()]} pid \$\$ of/ or die;

sub asked { my ($app) = @_; my $c = $app->send_request or return ''; return $app->answer_of($c) =~ /version (\S+)/ ? $1 : '' }

sub fds { my ($app) = @_; my @all = glob "/proc/$app->{pid}/fd/*"; return scalar @all }

for my $native (0, 1) {
    local $ENV{TEST_NATIVE} = $native;
    for my $port (undef, free_port()) {
        my $what = ($native ? ':fcgi' : 'FCGI.pm') . ($port ? ', TCP' : ', unix');
        my $app = Managed->new(program => $loop, files => { 'Site.pm' => version(1) }, port => $port, key => { n_processes => 2 });
        $app->up;
        is asked($app), 1, "$what: the first image";
        my $fds = fds($app);
        install($app, version(2));
        $app->signal('HUP');
        $app->wait_for('HUP', sub { $app->log_text =~ /reload done/ });
        is asked($app), 1, 'HUP does not load what the parent has loaded';
        $app->signal('USR2');
        $app->wait_for('USR2 does, in the same process', sub { asked($app) == 2 });
        ok $app->alive($app->{pid}), 'same process';
        $app->wait_for('the workers of the old image leave', sub { $app->workers == 2 && asked($app) == 2 });

        install($app, 'package Site; this is no perl;');
        $app->signal('USR2');
        $app->wait_for('broken code: refused, with the reason', sub { $app->log_text =~ /upgrade.*\n?.*syntax error/ });
        is asked($app), 2, 'the old image serves on';

        my $n = 2;
        my $lost = $app->load(12_000, sub { install($app, version(++$n)); $app->signal("USR2") }, 0.3);
        is $lost, 0, "$what: upgrades under load (" . ($n - 2) . ' asked): none lost';
        $app->wait_for('the last code serves', sub { asked($app) == $n });
        $app->wait_for('nothing is left open', sub { $app->workers == 2 && fds($app) <= $fds + 2 });
        is $app->stop, 0, 'ends';
        ok !-S $app->{path} || !$app->connect_to, 'and serves no more';
    }
}

# A socket that the program has opened in its own way cannot be found again: refused, and nothing happens.
(my $own = $loop) =~ s/FCGI::OpenSocket\(.*?\)/fileno(our \$l = IO::Socket::UNIX->new(Local => \$ENV{TEST_SOCKET}, Listen => 50))/ or die;
my $app = Managed->new(program => "use IO::Socket::UNIX;\n$own", files => { 'Site.pm' => version(1) });
$app->up;
$app->signal('USR2');
$app->wait_for('without an image: refused', sub { $app->log_text =~ /upgrade.*(?:refused|image|not)/i });
is asked($app), 1, 'and it serves on';
is $app->stop, 0;

# The pool's own listen, CGI::Fast's way, and an image that the program names.
$app = Managed->new(program => <<'CODE', files => { 'Site.pm' => version(1) }, env => { FCGI_SOCKET_PATH => 'app.sock', FCGI_LISTEN_QUEUE => 100 });
use lib '.'; use Site; use CGI::Fast;
my $pm = $class->new({ n_processes => 2, @key });
$pm->pm_manage;
while (my $cgi = CGI::Fast->new) {
    $pm->pm_pre_dispatch;
    print "Content-Type: text/plain\r\n\r\nversion @{[Site::version()]} pid $$\n";
    $pm->pm_post_dispatch;
}
CODE
SKIP: {
    skip 'CGI::Fast is not installed', 3 if !eval { require CGI::Fast; 1 };
    $app->up;
    install($app, version(2));
    $app->signal('USR2');
    $app->wait_for('CGI::Fast with FCGI_SOCKET_PATH', sub { asked($app) eq 2 });
    $app->wait_for('its workers are new', sub { $app->workers == 2 });
    is $app->stop, 0;
}

done_testing;
