#!/usr/bin/perl
# A CGI::Fast program as sites have them, with the workers of FCGI::ProcManager.
use strict;
use warnings;
use CGI::Fast;
use Digest::MD5 'md5_hex';
use FCGI::ProcManager;

my $manager = FCGI::ProcManager->new({ n_processes => 1 });
$manager->pm_manage;
while (my $q = CGI::Fast->new) {
    $manager->pm_pre_dispatch;
    my ($path) = $ENV{REQUEST_URI} =~ m{^(/\w*)};
    if ($path eq '/echo') {
        my $body = $q->param('POSTDATA');
        print $q->header(-type => 'application/octet-stream', -X_Sum => md5_hex($body)), $body;
    }
    elsif ($path eq '/form') { print $q->header('text/plain'), join ',', map { "$_=" . $q->param($_) } sort $q->param }
    elsif ($path eq '/log') { print STDERR 'to the log: ', scalar $q->param('m'), "\n"; print $q->header('text/plain'), 'logged' }
    elsif ($path eq '/text') { print $q->header(-type => 'text/plain', -charset => 'utf-8'), "\xe2\x98\xba \xd0\xbf\xd1\x80\xd0\xb8\n" }
    elsif ($path eq '/gone') { print $q->header(-type => 'text/plain', -status => '410 Gone'), 'gone' }
    elsif ($path eq '/go') { print $q->redirect('http://elsewhere.test/') }
    elsif ($path eq '/die') { die 'died of: ' . $q->param('m') . "\n" }
    else { print $q->header(-type => 'text/plain', -X_Test => 'yes'), join ' ', map { $ENV{$_} // '-' } qw(REQUEST_METHOD QUERY_STRING HTTP_X_ASK SERVER_PROTOCOL) }
    $manager->pm_post_dispatch;
}
