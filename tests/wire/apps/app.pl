# The suite's application on FCGI.pm; see ours.c. Its interface has no exit status. usage: perl app.pl SOCKET
use strict;
use warnings;
use FCGI;

my $socket = FCGI::OpenSocket($ARGV[0], 128);
my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \my %env, $socket);
while ($request->Accept >= 0) {
    my $query = $env{QUERY_STRING} // '';
    print "Content-Type: text/plain\r\n\r\n";
    if ($query eq 'early') { print 'x' x 65536 for 1 .. 64 }
    select undef, undef, undef, 0.3 if $query eq 'slow';
    print STDERR "oops\n" if $query eq 'err';
    my ($len, $data) = (0, 0);
    while (my $n = read STDIN, my $piece, 65536) { $len += $n }
    if (($env{FCGI_ROLE} // '') eq 'FILTER') {
        $request->StartFilterData if $request->can('StartFilterData');
        while (my $n = read STDIN, my $piece, 65536) { $data += $n }
    }
    printf "len=%d data=%d role=%s status=none proxy=%d x=%s\n", $len, $data, $env{FCGI_ROLE} // '?', length($env{HTTP_PROXY} // ''),
        unpack 'H*', substr $env{X} // '', 0, 64;
    $request->Finish;
}
