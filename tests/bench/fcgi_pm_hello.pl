# FCGI.pm's hello. usage: perl fcgi_pm_hello.pl SOCKET [BYTES]
use strict;
use warnings;
use FCGI;

my ($path, $bytes) = @ARGV;
my $body = 'x' x ($bytes // 100);
my $socket = FCGI::OpenSocket($path, 128);
my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \my %env, $socket);
while ($request->Accept >= 0) {
    1 while read STDIN, my $sink, 65536;
    print "Content-Type: text/plain\r\n\r\n", $body;
    $request->Finish;
}
