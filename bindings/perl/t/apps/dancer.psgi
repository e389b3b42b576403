package TestDancer;
use Dancer2;
use Digest::MD5 'md5_hex';

set logger => 'console';
set log => 'warning';
post '/echo' => sub { my $body = request->body; content_type 'application/octet-stream'; response_header 'X-Sum' => md5_hex($body); $body };
post '/form' => sub { my %p = params('body'); content_type 'text/plain'; join ',', map { "$_=$p{$_}" } sort keys %p };
get '/log' => sub { request->env->{'psgi.errors'}->print('to the log: ' . query_parameters->get('m') . "\n"); content_type 'text/plain'; 'logged' };
get '/text' => sub { content_type 'text/plain; charset=utf-8'; "\x{263a} \x{43f}\x{440}\x{438}\n" };
get '/gone' => sub { status 410; content_type 'text/plain'; 'gone' };
get '/go' => sub { redirect 'http://elsewhere.test/' };
get '/die' => sub { die 'died of: ' . query_parameters->get('m') . "\n" };
get '/' => sub { content_type 'text/plain'; response_header 'X-Test' => 'yes'; join ' ', map { request->env->{$_} // '-' } qw(REQUEST_METHOD QUERY_STRING HTTP_X_ASK SERVER_PROTOCOL) };

TestDancer->to_app;
