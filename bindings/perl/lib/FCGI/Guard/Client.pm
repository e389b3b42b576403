package FCGI::Guard::Client;

use strict;
use warnings;
use Carp ();
use FCGI::Guard;
use FCGI::Guard::Response;

our $VERSION = '0.001000';

# A handle belongs to one interpreter; a cloned thread must not free it twice.
sub FCGI::Guard::Client::Handle::CLONE_SKIP { 1 }

my %REQUEST = map { $_ => 1 } qw(script param body method query content_type);

sub new {
    my ($class, $address, @given) = @_;
    Carp::croak('a client needs an address') unless defined $address;
    my %option = FCGI::Guard::Error::_options('a client', @given);
    FCGI::Guard::check_address($address);
    my $handle = FCGI::Guard::Client::Handle::new_handle();
    # Perl runs its signal handlers between operations, so a wait has to end for them.
    $handle->set(interruptible => 1);
    FCGI::Guard::Error::_each(sub { $handle->set($_[0] => $option{ $_[0] }) if defined $option{ $_[0] } }, sort keys %option);
    return bless { handle => $handle, address => $address, turn => 0 }, $class;
}

sub address { $_[0]{address} }

sub is_connected { $_[0]{handle}->is_connected ? 1 : 0 }

sub close {
    my ($self) = @_;
    $self->{turn}++;
    $self->{open} = 0;
    $self->{handle}->close;
    return;
}

# Calls a method of the handle again as long as a signal has ended it; handlers have run in between.
sub _call {
    my ($self, $method, @argument) = @_;
    my $handle = $self->{handle};
    while (1) {
        my @found;
        return wantarray ? @found : $found[0] if eval { @found = $handle->$method(@argument); 1 };
        die $@ unless ref $@ && $@->isa('FCGI::Guard::Error') && $@->name eq 'interrupted';
    }
}

sub request {
    my ($self, @given) = @_;
    my %option = FCGI::Guard::Error::_options('request', @given);
    if (my @unknown = grep { !$REQUEST{$_} } sort keys %option) {
        Carp::croak("request has no option @unknown; it has @{[sort keys %REQUEST]} (PATH_INFO and the like go into param)");
    }
    Carp::croak('param: not a reference to a hash') if defined $option{param} && ref $option{param} ne 'HASH';
    my $body  = $option{body};
    my %param = (%{ $self->_usual(\%option) }, %{ $option{param} || {} });
    if (ref $body && !defined $param{CONTENT_LENGTH}) {
        # A file has a length; everything else is read first, since CGI wants to be told.
        if (ref $body ne 'CODE' && -f $body) {
            my $length = -s _;
            $length -= tell $body;
            $param{CONTENT_LENGTH} = $length > 0 ? $length : 0;
        }
        else {
            my $whole = '';
            _pieces($body, sub { $whole .= $_[0] });
            $body = $whole;
        }
    }
    $param{CONTENT_LENGTH} = defined $body && !ref $body ? length $body : '' unless defined $param{CONTENT_LENGTH};

    my $handle = $self->{handle};
    $self->{turn}++;
    $handle->close if $self->{open};
    $self->{open} = 0;
    $handle->connect($self->{address}) if !$self->{connected}++;
    $handle->param($_, $param{$_}) for sort keys %param;
    $handle->begin;
    $self->{open} = 1;
    if (ref $body) {
        _pieces($body, sub { $self->_write($_[0]) });
    }
    elsif (defined $body) {
        $self->_write($body);
    }
    $handle->end;
    my ($status, $fields) = $self->_call('head');
    return FCGI::Guard::Response->new($self, $self->{turn}, $status, $fields);
}

sub _write {
    my ($self, $bytes) = @_;
    my $at = 0;
    $at += $self->_call(write => $bytes, $at) while $at < length $bytes;
    return;
}

sub _pieces {
    my ($body, $take) = @_;
    if (ref $body eq 'CODE') {
        while (defined(my $piece = $body->())) { $take->($piece) }
        return;
    }
    while (1) {
        my $got = read $body, my $piece, 65536;
        Carp::croak("the body cannot be read: $!") unless defined $got;
        last unless $got;
        $take->($piece);
    }
    return;
}

sub _usual {
    my ($self, $option) = @_;
    my $script = $option->{script};
    my $query  = defined $option->{query} ? $option->{query} : '';
    my $name   = defined $script ? '/' . ($script =~ m{([^/]*)\z})[0] : '/';
    my $method = defined $option->{method} ? $option->{method} : defined $option->{body} ? 'POST' : 'GET';
    my $type   = defined $option->{content_type} ? $option->{content_type} : 'application/octet-stream';
    return {
        GATEWAY_INTERFACE => 'CGI/1.1',
        SERVER_PROTOCOL   => 'HTTP/1.1',
        SERVER_SOFTWARE   => 'fcgiguard',
        SERVER_NAME       => 'localhost',
        SERVER_ADDR       => '127.0.0.1',
        SERVER_PORT       => '80',
        REMOTE_ADDR       => '127.0.0.1',
        REMOTE_PORT       => '0',
        HTTP_HOST         => 'localhost',
        REQUEST_METHOD    => $method,
        QUERY_STRING      => $query,
        REQUEST_URI       => length $query ? "$name?$query" : $name,
        SCRIPT_NAME       => $name,
        DOCUMENT_URI      => $name,
        (defined $script         ? (SCRIPT_FILENAME => $script) : ()),
        (defined $option->{body} ? (CONTENT_TYPE    => $type)   : ()),
    };
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::Client - send requests to a FastCGI server

=head1 SYNOPSIS

    use FCGI::Guard::Client;

    my $client   = FCGI::Guard::Client->new('unix:/run/php/php-fpm.sock', timeout => '10s');
    my $response = $client->request(script => '/srv/www/index.php', query => 'page=2');
    print $response->status, ' ', $response->header('Content-Type'), "\n";
    while (defined(my $piece = $response->read)) {
        print $piece;
    }
    warn $response->errors if length $response->errors;

=head1 DESCRIPTION

Speaks FastCGI as a web server does: a body goes out while the answer comes in, so that two sides that both only write
cannot lock each other up, and everything has a deadline. One request at a time: a new one gives up an answer that was
not read to its end. After a failed request the next one connects anew. Signal handlers run while a call waits; one
that dies ends the wait.

=head1 METHODS

=head2 new($address, %option)

Addresses: C<unix:/path>, C</path>, C<host:port>, C<:port>, C<[v6]:port>. The first request connects.

=over

=item timeout

Longest time of a connect, and of a request until its answer is read to the end: C<250ms>, C<5s>, a bare number is
seconds, 0 is none. Default C<60s>.

=item idle_timeout

Longest wait without a byte; 0, the default, is none.

=item keep_conn

1 asks the server to keep the connection for the next request; it holds one of its workers.

=item role

C<responder> (the default), C<authorizer> or C<filter>.

=item hold

How much of an answer may come while the body is still sent, default C<64M>; more is the error C<limit_exceeded>.

=item head_bytes, head_fields

Limits of the answer's head, 64k and 256.

=back

=head2 request(%option)

Sends a request and its body, waits for the head of the answer, and returns an L<FCGI::Guard::Response>. Dies with an
L<FCGI::Guard::Error>; its C<name> is for example C<no_socket>, C<refused>, C<timeout>, C<closed>, C<truncated>.

=over

=item script

The file that php-fpm is to run (SCRIPT_FILENAME); SCRIPT_NAME is its last part.

=item param

A hash of CGI parameters, which replace those that are set by themselves. They are bytes.

=item body

A string of bytes, a file handle (sent from where it stands), or a sub that returns pieces and at last undef. What is
neither a string nor a file is read into memory first, unless C<param> has CONTENT_LENGTH.

=item method, query, content_type

By default GET, or POST with a body; no query; C<application/octet-stream>.

=back

=head2 is_connected

Whether a connection is open: after a whole answer, whether it was kept.

=head2 close

Closes the connection; an answer that was not read to its end is lost.

=head2 address

What C<new> was given.

=head1 SEE ALSO

L<FCGI::Guard::Response>, L<FCGI::Guard>, L<FCGI::Guard::Error>

=cut
