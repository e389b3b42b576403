# The least FCGI.pm program, as a worker: its descriptor 0 is the listening socket.
use strict;
use warnings;
use FCGI;

my $request = FCGI::Request();
while ($request->Accept >= 0) {
    print "Content-Type: text/plain\r\n\r\n$$\n";
}
