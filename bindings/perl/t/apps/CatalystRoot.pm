package TestCatalyst::Controller::Root;
# Takes the place of the root controller that catalyst.pl makes.
use Moose;
use namespace::autoclean;
use Digest::MD5 'md5_hex';
BEGIN { extends 'Catalyst::Controller' }
__PACKAGE__->config(namespace => '');

sub plain { my ($c, $text) = @_; $c->response->content_type('text/plain'); $c->response->body($text) }

sub index :Path :Args(0) {
    my ($self, $c) = @_;
    $c->response->header('X-Test' => 'yes');
    plain($c, join ' ', map { $c->request->env->{$_} // '-' } qw(REQUEST_METHOD QUERY_STRING HTTP_X_ASK SERVER_PROTOCOL));
}

sub echo :Local {
    my ($self, $c) = @_;
    my $in = $c->request->body;
    my $body = ref $in ? do { local $/; <$in> } : $in // '';
    $c->response->header('X-Sum' => md5_hex($body));
    $c->response->content_type('application/octet-stream');
    $c->response->body($body);
}
sub form :Local { my ($self, $c) = @_; my $p = $c->request->body_parameters; plain($c, join ',', map { "$_=$p->{$_}" } sort keys %$p) }
sub log :Local { my ($self, $c) = @_; $c->request->env->{'psgi.errors'}->print('to the log: ', $c->request->query_parameters->{m}, "\n"); plain($c, 'logged') }
sub text :Local { my ($self, $c) = @_; $c->response->content_type('text/plain; charset=utf-8'); $c->response->body("\x{263a} \x{43f}\x{440}\x{438}\n") }
sub gone :Local { my ($self, $c) = @_; $c->response->status(410); plain($c, 'gone') }
sub go :Local { my ($self, $c) = @_; $c->response->redirect('http://elsewhere.test/') }
sub die :Local { my ($self, $c) = @_; CORE::die('died of: ' . $c->request->query_parameters->{m} . "\n") }
sub stream :Local { my ($self, $c) = @_; $c->response->content_type('text/plain'); $c->response->write("piece $_\n") for 1 .. 1000 }

__PACKAGE__->meta->make_immutable;
1;
