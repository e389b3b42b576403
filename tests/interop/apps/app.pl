#!/usr/bin/perl
# An FCGI.pm program as people have written it for twenty years. Descriptor 0 is the listening socket, or argument 1 names one.
use strict;
use warnings;
use FCGI;

my %env;
my $socket = @ARGV ? FCGI::OpenSocket($ARGV[0], 16) : 0;
my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%env, $socket);
while ($request->Accept() >= 0) {
    my ($ms) = ($env{QUERY_STRING} // '') =~ /sleep=(\d+)/;
    select undef, undef, undef, $ms / 1000 if $ms;
    my $length = $env{CONTENT_LENGTH} || 0;
    my $got = 0;
    while ($got < $length and my $n = read STDIN, my $piece, 65536) { $got += $n }
    print "Content-Type: text/plain\r\nX-Worker: $$\r\n\r\n", "pid=$$ app=fcgi.pm uri=", $env{REQUEST_URI} // '', " body=$got\n";
}
