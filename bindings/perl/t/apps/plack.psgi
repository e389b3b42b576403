use strict;
use warnings;
use Digest::MD5 'md5_hex';
use Plack::Request;

sub {
    my ($env) = @_;
    my $q    = Plack::Request->new($env);
    my $path = $env->{PATH_INFO};
    if ($path eq '/echo') { my $body = $q->content; return [200, ['Content-Type' => 'application/octet-stream', 'X-Sum' => md5_hex($body)], [$body]] }
    if ($path eq '/form') { return [200, ['Content-Type' => 'text/plain'], [join ',', map { "$_=" . $q->param($_) } sort $q->param]] }
    if ($path eq '/log') { $env->{'psgi.errors'}->print('to the log: ', $q->param('m'), "\n"); return [200, ['Content-Type' => 'text/plain'], ['logged']] }
    if ($path eq '/text') { return [200, ['Content-Type' => 'text/plain; charset=utf-8'], ["\xe2\x98\xba ", "\xd0\xbf\xd1\x80\xd0\xb8\n"]] }
    if ($path eq '/gone') { return [410, ['Content-Type' => 'text/plain'], ['gone']] }
    if ($path eq '/go') { return [302, [Location => 'http://elsewhere.test/'], []] }
    if ($path eq '/die') { die 'died of: ' . $q->param('m') . "\n" }
    if ($path eq '/stream') {
        return sub {
            my $writer = $_[0]->([200, ['Content-Type' => 'text/plain']]);
            $writer->write("piece $_\n") for 1 .. 1000;
            $writer->close;
        };
    }
    return [200, ['Content-Type' => 'text/plain', 'X-Test' => 'yes'], [join ' ', map { $env->{$_} // '-' } qw(REQUEST_METHOD QUERY_STRING HTTP_X_ASK SERVER_PROTOCOL)]];
};
