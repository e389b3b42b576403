package FCGI::Guard;

use strict;
use warnings;
use Carp ();
use Exporter ();

our $VERSION   = '0.001000';
our @EXPORT_OK = qw(probe);

require XSLoader;
XSLoader::load('FCGI::Guard', $VERSION);

require FCGI::Guard::Error;
require FCGI::Guard::Pool;
require FCGI::Guard::Responder;

# `:fcgi` puts the FCGI interface in place; everything else is Exporter's.
sub import {
    my ($class, @want) = @_;
    my @rest = grep { $_ ne ':fcgi' } @want;
    if (@rest < @want) {
        require FCGI::Guard::FCGI;
        FCGI::Guard::FCGI->install;
        return if !@rest;
    }
    @_ = ($class, @rest);
    goto &Exporter::import;
}

sub responder {
    my ($class, @option) = @_;
    return FCGI::Guard::Responder->new(@option);
}

sub probe {
    my ($address, @given) = @_;
    Carp::croak('probe needs an address') unless defined $address;
    my %option = FCGI::Guard::Error::_options('probe', @given);
    Carp::croak('param: not a reference to a hash') if defined $option{param} && ref $option{param} ne 'HASH';
    my $probe = FCGI::Guard::Probe::new_handle();
    FCGI::Guard::Error::_each(sub {
        my ($name) = @_;
        my $value = $option{$name};
        if (ref $value eq 'HASH') {
            $probe->set($name, "$_=$value->{$_}") for sort keys %$value;
        }
        elsif (ref $value eq 'ARRAY') {
            $probe->set($name, $_) for @$value;
        }
        elsif (defined $value) {
            $probe->set($name, $value);
        }
    }, sort keys %option);
    return $probe->run($address);
}

{
    package FCGI::Guard::Report;
    for my $field (qw(address verdict outcome phase method detail json line)) {
        no strict 'refs';
        *$field = sub { $_[0]->text($field) };
    }
    for my $field (
        qw(elapsed_us connect_us send_us first_byte_us complete_us queue_waiting queue_limit http_status app_status))
    {
        no strict 'refs';
        *$field = sub { $_[0]->number($field) };
    }
    sub is_alive { $_[0]->outcome eq 'alive' }
}

# A handle belongs to one interpreter; a cloned thread must not free it twice.
for my $package (qw(Probe Report Pool Worker Trace Responder Request)) {
    no strict 'refs';
    *{"FCGI::Guard::${package}::CLONE_SKIP"} = sub { 1 };
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard - probe FastCGI services and keep a pool of FastCGI workers alive

=head1 SYNOPSIS

    use FCGI::Guard 'probe';

    my $report = probe('unix:/run/app.sock', timeout => '5s');
    print $report->line, "\n";                  # one readable line
    exit $report->exit_code;                    # 0 alive, 1 busy, 2 dead: Nagios' own

    # A pre-fork pool around an FCGI.pm loop
    use FCGI;
    use FCGI::Guard;

    my $pool = FCGI::Guard::Pool->new(listen => ':9005', workers => 4);
    $pool->manage or exit $pool->exit_code;     # returns true in each worker, false in the manager at the end

    my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%ENV, $pool->socket);
    while ($pool->accept($request)) {
        print "Content-Type: text/plain\r\n\r\nHello from $$\n";
        $request->Finish;
    }

    # An accept loop of our own
    my $loop = FCGI::Guard->responder(listen => '/run/app.sock');
    while (my $request = $loop->accept) {
        $request->print("Content-Type: text/plain\r\n\r\nHello from $$\n");
        $request->finish;
    }

    # FCGI.pm's interface, for programs that use FCGI, CGI::Fast, Plack or Catalyst
    perl -MFCGI::Guard=:fcgi app.fcgi

=head1 FUNCTIONS

=head2 probe($address, %options)

Checks one FastCGI server and returns an C<FCGI::Guard::Report>, whatever the verdict is. Dies with an
L<FCGI::Guard::Error> when the address or an option is wrong.

Addresses: C<unix:/path>, C</path>, C<host:port>, C<:port>, C<[v6]:port>.

Options: C<method> (C<auto>, C<get-values>, C<request>), C<timeout> (C<250ms>, C<5s>, a bare number is seconds),
C<param> (a hash of CGI parameters), C<script> (a file name for php-fpm), C<expect_status>, C<expect_header>,
C<expect_body>.

The report answers C<verdict>, C<outcome> (C<alive>, C<busy>, C<dead>), C<exit_code>, C<code>, C<phase>, C<method>,
C<detail>, C<line>, C<json>, C<is_alive>, and in microseconds C<elapsed_us>, C<connect_us>, C<send_us>,
C<first_byte_us>, C<complete_us>; also C<queue_waiting>, C<queue_limit>, C<http_status>, C<app_status> (undef if not
known).

=head2 FCGI::Guard->responder(%options)

An accept loop: see L<FCGI::Guard::Responder>.

=head2 The import C<:fcgi>

Puts the FCGI interface in place, so that C<use FCGI> and everything built on it runs on this module: see
L<FCGI::Guard::FCGI>.

=head2 library_version, error_table, option_names, option_exec_only($name), check_address($address)

The version of the library inside; all error codes as a list of number and name; the names of all pool options; dies
if an address does not parse.

=head1 SEE ALSO

L<FCGI::Guard::Manual>, L<FCGI::Guard::Pool>, L<FCGI::Guard::Responder>, L<FCGI::Guard::FCGI>, L<FCGI::Guard::Error>

=head1 LICENSE

MIT or Apache-2.0, at your choice.

=cut
