package FCGI::Guard::Error;

use strict;
use warnings;
use overload '""' => \&_text, bool => sub { 1 }, fallback => 1;

our $VERSION = '0.001000';

sub code    { $_[0]{code} }
sub name    { $_[0]{name} }
sub message { $_[0]{message} }
sub file    { $_[0]{file} }
sub line    { $_[0]{line} }

sub _text {
    my ($self) = @_;
    my $place = defined $self->{file} ? " at $self->{file} line $self->{line}." : '';
    return "$self->{message} ($self->{name}, $self->{code})$place\n";
}

# An error where the program called; also called by Guard.xs, from whatever line of ours that runs.
sub _make {
    my ($code, $name, $message) = @_;
    my ($depth, @place) = (0);
    while (my ($package, $file, $line) = caller $depth++) {
        @place = ($file, $line);
        last if $package !~ /\AFCGI(?:::Guard\b|\z)/;
    }
    return bless { code => $code, name => $name, message => $message, file => $place[0], line => $place[1] }, __PACKAGE__;
}

# Runs the code with each word, and then dies of everything that was wrong, at once: of the first with the messages of all.
sub _each {
    my ($code, @words) = @_;
    my @wrong;
    for my $word (@words) {
        next if eval { $code->($word); 1 };
        die $@ if !ref $@ || !$@->isa(__PACKAGE__);
        push @wrong, $@;
    }
    return if !@wrong;
    $wrong[0]{message} = join '; ', map { $_->message } @wrong;
    die $wrong[0];
}

# The options of a call, as a list of pairs or as a reference to a hash.
sub _options {
    my ($what, @given) = @_;
    return %{ $given[0] } if @given == 1 && ref $given[0] eq 'HASH';
    die _make(-102, 'invalid_argument', "$what: the options are not pairs of name and value") if @given % 2;
    return @given;
}

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

One line that says what was wrong. Of several options that are wrong it tells all; code and name are then the first one's.

=item file, line

Where the program called.

=back

As a string it is all of it.

=cut
