use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Cwd 'abs_path';
use Managed;

# The example as it is written.
my $script = abs_path('examples/guarded-workers.pl');
my %env = (PERL5LIB => join(':', grep { !ref } @INC), GUARDED_SOCKET => 'app.sock', GUARDED_WORKERS => 2);
my $app = Managed->new(env => \%env, command => [$script]);
$app->up;
ok $app->ask, 'it serves';
$app->signal('HUP');
$app->wait_for('it reloads', sub { $app->log_text =~ /reload done/ });
is $app->stop, 0;

$app = Managed->new(env => \%env, command => [$script, 'No::Such::Module' => 'new']);
is $app->wait_end >> 8, 78, 'a module that is not there';
like $app->log_text, qr/preload failed: Can't locate/;

$app = Managed->new(env => \%env, command => [$script, 'HTTP::Tiny' => 'no_such_method']);
is $app->wait_end >> 8, 78, 'a method that is not there';
like $app->log_text, qr/verify failed: HTTP::Tiny has no method 'no_such_method'/;

done_testing;
