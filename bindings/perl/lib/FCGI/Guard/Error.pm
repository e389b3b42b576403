package FCGI::Guard::Error;

use strict;
use warnings;
use overload '""' => sub { $_[0]->message . ' (' . $_[0]->name . ', ' . $_[0]->code . ")\n" }, bool => sub { 1 }, fallback => 1;

our $VERSION = '0.001000';

sub code    { $_[0]{code} }
sub name    { $_[0]{name} }
sub message { $_[0]{message} }

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::Error - what FCGI::Guard dies with

=head1 SYNOPSIS

    eval { FCGI::Guard::probe('nonsense') ; 1 } or do {
        my $error = $@;
        warn $error->message if ref $error && $error->isa('FCGI::Guard::Error');
    };

=head1 METHODS

=over

=item code

The stable negative number of the one error table.

=item name

Its name, for example C<invalid_address>.

=item message

One line that says what was wrong and where.

=back

As a string it is all three.

=cut
