# FCGI.pm, the plain loop. PERL_TERM=1 installs the handler that most deployed scripts have.
use strict; use warnings; use FCGI;
my $stop = 0;
$SIG{TERM} = sub { $stop = 1 } if $ENV{PERL_TERM};
my $request = FCGI::Request();
while (!$stop && $request->Accept() >= 0) {
    my $query = $ENV{QUERY_STRING} // '';
    select(undef, undef, undef, $1 / 1000) if $query =~ /sleep=(\d+)/;
    my $child = $query =~ /child/ ? `grep SigBlk /proc/self/status` : '';
    print "Content-Type: text/plain\r\n\r\nok $$ $child";
}
END { print STDERR "END ran\n" }
