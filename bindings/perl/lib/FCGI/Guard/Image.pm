package FCGI::Guard::Image;

# How this program was started, and whether this process goes on for a former image of it. Loaded early: a program that changes $0
# overwrites its command line.
use strict;
use warnings;
use Cwd ();

our $VERSION = '0.001000';

my $loaded_in = $$;
my @command = look();

sub look {
    # -e needs no file; a script that was read from a pipe cannot be read again.
    return if $0 ne '-e' && !-f $0;
    my @words;
    if (open my $in, '<', '/proc/self/cmdline') {
        local $/;
        @words = split /\0/, scalar(<$in>) // '', -1;
        pop @words if @words;
    }
    my ($at) = grep { $words[$_] eq $0 } 1 .. $#words;
    @words = ($^X, $0, @ARGV) if $0 ne '-e' && !defined $at;
    return if $0 eq '-e' && !grep { /^-\w*[eE]/ } @words;
    # The program may have another working directory by then.
    if ($0 ne '-e') { $_ eq $0 and $_ = Cwd::abs_path($0) for @words[1 .. $#words] }
    $words[0] = $^X;
    return @words;
}

# Program and arguments; none if they are not known, or if the program has become another process since.
sub command { return $$ == $loaded_in ? @command : () }

# Whether this process is a new image of one that served before, or its dry run: listening sockets were handed over.
sub goes_on {
    return 1 if defined $ENV{FCGIGUARD_CHECK_FD};
    return defined $ENV{FCGIGUARD_STATE_PID} && $ENV{FCGIGUARD_STATE_PID} eq $$;
}

# What FCGI::OpenSocket takes (path, :port, host:port) as an address of the library. FCGI.pm listens on IPv4.
sub address_of {
    my ($where) = @_;
    return "0.0.0.0$where" if $where =~ /\A:\d+\z/;
    return $where if $where =~ /:\d+\z/;
    return 'unix:' . absolute($where);
}

sub absolute { my ($path) = @_; return $path =~ m{^/} ? $path : Cwd::getcwd() . "/$path" }

# The socket that the former image had at this place, or a new one.
sub listen_at {
    my ($where, $backlog) = @_;
    require FCGI::Guard;
    return FCGI::Guard::listen_at(address_of($where), $backlog || 0);
}

1;

__END__

=encoding utf8

=head1 NAME

FCGI::Guard::Image - how a program is started again for an upgrade

=head1 DESCRIPTION

Internal to L<FCGI::Guard::Pool> and L<FCGI::Guard::ProcManager>; L<FCGI::Guard::Manual> says what an upgrade is.

=cut
