package FCGI::Guard::ProcManager::Replace;

# Puts FCGI::Guard::ProcManager and its family where a program looks for FCGI::ProcManager and its family. Nothing else is
# loaded before the program asks for it, so that it may stand in PERL5OPT of programs that have no pool at all.
use strict;
use warnings;
use FCGI::Guard::ProcManager;

our $VERSION = '0.001000';

my $BASE = 'FCGI::ProcManager';
my $OURS = 'FCGI::Guard::ProcManager';

# Version of the interface that is answered, for `use FCGI::ProcManager 0.20`.
my %FAMILY = ('' => '0.28', Constrained => '0.28', MaxRequests => '0.02', MaxSize => '0.02', Dynamic => '0.6');

sub put_in_place {
    my ($short) = @_;
    my $old = length $short ? "${BASE}::$short" : $BASE;
    my $new = length $short ? "${OURS}::$short" : $OURS;
    (my $file = "$old.pm") =~ s{::}{/}g;
    no strict 'refs';
    no warnings 'once';
    # A subclass is a subclass of the old base too.
    @{"${old}::ISA"}     = ($new, length $short ? $BASE : ());
    ${"${old}::VERSION"} = $FAMILY{$short};
    return ($file, $new);
}

sub functions {
    no strict 'refs';
    for my $name (@FCGI::Guard::ProcManager::EXPORT_OK, 'self_or_default') {
        next if $name =~ /^\$/;
        *{"${BASE}::$name"} = \&{"${OURS}::$name"};
    }
    *{"${BASE}::EXPORT_OK"}   = \@FCGI::Guard::ProcManager::EXPORT_OK;
    *{"${BASE}::EXPORT_TAGS"} = \%FCGI::Guard::ProcManager::EXPORT_TAGS;
    *{"${BASE}::SIG_CODEREF"} = \$FCGI::Guard::ProcManager::SIG_CODEREF;
    return;
}

if ($INC{'FCGI/ProcManager.pm'} && !$FCGI::ProcManager::ISA[0]) {
    warn "$BASE is loaded already and stays; put -MFCGI::Guard::ProcManager=replace before it\n";
}
else {
    my ($file) = put_in_place('');
    functions();
    $INC{$file} = __FILE__;
    # The subclasses are loaded when they are asked for.
    unshift @INC, sub {
        my (undef, $wanted) = @_;
        my ($short) = $wanted =~ m{\AFCGI/ProcManager/(\w+)\.pm\z} or return;
        return if !length $short || !exists $FAMILY{$short};
        my (undef, $new) = put_in_place($short);
        my $text = "require $new; 1;";
        open my $in, '<', \$text or return;
        return $in;
    };
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::ProcManager::Replace - FCGI::Guard::ProcManager in the place of FCGI::ProcManager

=head1 SYNOPSIS

    PERL5OPT=-MFCGI::Guard::ProcManager=replace script/myapp_fastcgi.pl -l /run/app.sock -n 5

=head1 DESCRIPTION

Loaded by C<use FCGI::Guard::ProcManager 'replace'>. A program that loads C<FCGI::ProcManager>, or its subclasses
C<Constrained>, C<MaxRequests>, C<MaxSize> and C<Dynamic>, then gets classes of that name that inherit from
C<FCGI::Guard::ProcManager> and its family. Subclasses of the program's own inherit in turn. The originals need not be
installed. If the original is loaded already it stays, with a warning.

=cut
