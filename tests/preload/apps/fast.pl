# CGI::Fast.
use strict; use warnings; use CGI::Fast;
while (my $q = CGI::Fast->new) {
    my $query = $ENV{QUERY_STRING} // '';
    select(undef, undef, undef, $1 / 1000) if $query =~ /sleep=(\d+)/;
    if ($query =~ /child/) { system('grep SigBlk /proc/self/status > /dev/null') }
    my $child = $query =~ /child/ ? `grep SigBlk /proc/self/status` : '';
    print $q->header('text/plain'), "ok $$ $child";
}
END { print STDERR "END ran\n" }
