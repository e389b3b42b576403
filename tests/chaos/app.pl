#!/usr/bin/perl
# An unchanged FCGI.pm program: the plainest loop there is.
use strict;
use warnings;
use FCGI;

my $request = FCGI::Request();
my $count   = 0;
while ($request->Accept() >= 0) {
    $count++;
    print "Content-Type: text/plain\r\nX-Worker-Pid: $$\r\n\r\nhello $count from $$\n";
}
