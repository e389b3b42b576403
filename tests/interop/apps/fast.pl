#!/usr/bin/perl
# CGI::Fast: descriptor 0, or FCGI_SOCKET_PATH with FCGI_LISTEN_QUEUE.
use strict;
use warnings;
use CGI::Fast;

while (my $q = CGI::Fast->new) {
    select undef, undef, undef, $q->param('sleep') / 1000 if $q->param('sleep');
    print $q->header(-type => 'text/plain', -X_Worker => $$), "pid=$$ app=cgi-fast uri=", $ENV{REQUEST_URI} // '', "\n";
}
