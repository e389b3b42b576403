package FCGI::Guard::Response;

use strict;
use warnings;
use FCGI::Guard::Error;

our $VERSION = '0.001000';

# Bytes of the error stream that are kept; more is dropped.
my $ERRORS = 1 << 20;

sub new {
    my ($class, $client, $turn, $status, $fields) = @_;
    return bless { client => $client, turn => $turn, status => $status, fields => $fields, errors => '' }, $class;
}

sub status { $_[0]{status} }

sub fields { @{ $_[0]{fields} } }

sub header {
    my ($self, $name) = @_;
    my @found = map { $_->[1] } grep { lc $_->[0] eq lc $name } @{ $self->{fields} };
    return wantarray ? @found : $found[0];
}

sub read {
    my ($self) = @_;
    while (!$self->{ended}) {
        my $client = $self->{client};
        if ($self->{turn} != $client->{turn}) {
            die FCGI::Guard::Error::_make(-106, 'wrong_state',
                'this answer was given up: its client has sent another request, or was closed');
        }
        my ($kind, $bytes) = $client->_call('read');
        return $bytes if $kind == 1;
        if ($kind == 2) {
            my $room = $ERRORS - length $self->{errors};
            $self->{errors} .= substr $bytes, 0, $room if $room > 0;
            next;
        }
        $self->{ended}  = 1;
        $client->{open} = 0;
        $self->{$_} = $client->{handle}->$_ for qw(app_status protocol_status);
    }
    return undef;    # one value in list context too
}

sub text {
    my ($self) = @_;
    my $text = '';
    while (defined(my $piece = $self->read)) { $text .= $piece }
    return $text;
}

sub errors { $_[0]{errors} }

sub app_status { $_[0]{app_status} }

sub protocol_status { $_[0]{protocol_status} }

sub abort {
    my ($self) = @_;
    my $client = $self->{client};
    return if $self->{ended} || $self->{turn} != $client->{turn};
    $self->{ended} = 1;
    # An application that does not look at the wish is stopped by its connection's end.
    my $asked = eval { $client->{handle}->abort; 1 };
    my $error = $@;
    $client->close;
    die $error unless $asked;
    return;
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::Response - the answer to a request of FCGI::Guard::Client

=head1 SYNOPSIS

    my $response = $client->request(script => '/srv/www/index.php');
    while (defined(my $piece = $response->read)) { print $piece }

=head1 METHODS

=over

=item status

The HTTP status: of the field Status, 302 for Location alone, else 200.

=item header($name)

The value of the first field of this name, in any case; in list context all of them.

=item fields

All fields in order, as pairs.

=item read

The next piece of the body, undef at its end.

=item text

What is left of the body.

=item errors

What the application has written to its error stream so far, at most a megabyte.

=item app_status, protocol_status

How the request ended: what the application returned, and what the protocol says (0 complete, 1 cannot multiplex, 2
overloaded, 3 unknown role); undef before the end.

=item abort

Gives the rest up: the application is asked to stop, and the connection is closed.

=back

=cut
