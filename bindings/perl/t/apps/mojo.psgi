use Mojolicious::Lite -signatures;
use Digest::MD5 'md5_hex';

app->mode('production');
app->secrets(['test']);
post '/echo' => sub ($c) { my $body = $c->req->body; $c->res->headers->header('X-Sum' => md5_hex($body)); $c->render(data => $body, format => 'bin') };
post '/form' => sub ($c) { my $p = $c->req->body_params->to_hash; $c->render(text => join(',', map { "$_=$p->{$_}" } sort keys %$p), format => 'txt') };
get '/log' => sub ($c) { print STDERR 'to the log: ', $c->param('m'), "\n"; $c->render(text => 'logged', format => 'txt') };
get '/text' => sub ($c) { $c->render(text => "\x{263a} \x{43f}\x{440}\x{438}\n", format => 'txt') };
get '/gone' => sub ($c) { $c->render(text => 'gone', format => 'txt', status => 410) };
get '/go' => sub ($c) { $c->redirect_to('http://elsewhere.test/') };
get '/die' => sub ($c) { die 'died of: ' . $c->param('m') . "\n" };
get '/' => sub ($c) { $c->res->headers->header('X-Test' => 'yes'); my $e = $c->req->env; $c->render(text => join(' ', map { $e->{$_} // '-' } qw(REQUEST_METHOD QUERY_STRING HTTP_X_ASK SERVER_PROTOCOL)), format => 'txt') };

app->start;
