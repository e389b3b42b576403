#!/usr/bin/perl
# /srv/shop/app.pl: what is loaded is tried before the first request is taken.
use strict;
use warnings;
use FCGI;
use lib '/srv/shop/lib';

# `require` may succeed and leave half a class behind: ask for what will be called.
unless (eval { require Shop::Page; 1 } and Shop::Page->can('new')) {
    print STDERR 'Shop::Page cannot be used: ', $@ || "it has no method new\n";
    exit 78;
}
my %env;
my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%env);
while ($request->Accept() >= 0) {
    print "Content-Type: text/plain\r\nX-Worker: $$\r\n\r\n", Shop::Page->new->text, "\n";
}
