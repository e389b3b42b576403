#!/usr/bin/perl
# The matrix's worker in Perl: `worker.pl guard` on FCGI::Guard's loop, `worker.pl fcgi` on FCGI.pm.
# What it answers is selected by the query string; workers.py has the list.
use strict;
use warnings;
use Compress::Raw::Zlib ();

my $block = join '', map { chr(($_ * 31 + ($_ >> 8) * 17) & 255) } 0 .. 65520;

sub pattern {
    my ($out, $from, $len) = @_;
    while ($len > 0) {
        my $at = $from % 65521;
        my $piece = 65521 - $at < $len ? 65521 - $at : $len;
        $out->(substr $block, $at, $piece) or return;
        $from += $piece;
        $len -= $piece;
    }
}

sub answer {
    my ($env, $in, $out, $flush, $err) = @_;
    my %arg = map { /^([^=]*)=(.*)$/s ? ($1 => $2) : () } split /&/, $env->{QUERY_STRING} // '';
    my ($do, $n, $ms) = ($arg{do} // '', $arg{n} // 0, $arg{ms} // 0);
    my $head = sub { $out->("Content-Type: application/octet-stream\r\nX-Worker: $$\r\n", @_, "\r\n") };
    if ($do eq 'env') {
        $head->();
        $out->(map { "$_=$env->{$_}\n" } sort keys %$env);
    } elsif ($do eq 'echo') {
        my $body = '';
        while (length(my $piece = $in->())) { $body .= $piece }
        $head->();
        $out->($body);
    } elsif ($do eq 'sum') {
        my ($sum, $whole) = (0, 0);
        while (length(my $piece = $in->())) {
            $sum = Compress::Raw::Zlib::crc32($piece, $sum);
            $whole += length $piece;
        }
        $head->();
        $out->(sprintf "%d %08x\n", $whole, $sum);
    } elsif ($do eq 'big' or $do eq 'fixed') {
        $head->($do eq 'fixed' ? "Content-Length: $n\r\n" : ());
        pattern($out, 0, $n);
    } elsif ($do eq 'slow') {
        $head->();
        for my $i (0 .. 3) {
            pattern($out, $i * int($n / 4), int($n / 4));
            $flush->();
            select undef, undef, undef, $ms / 1000;
        }
    } elsif ($do eq 'late') {
        select undef, undef, undef, $ms / 1000;
        $head->();
        $out->("late\n");
    } elsif ($do eq 'empty') {
        $head->();
    } elsif ($do eq 'status') {
        $head->("Status: 404 Not Found\r\n", "Set-Cookie: a=1\r\n", "Set-Cookie: b=2\r\n");
        $out->("not here\n");
    } elsif ($do eq 'headers') {
        $head->(map { "X-H-$_: value-$_\r\n" } 0 .. $n - 1);
        $out->("headers\n");
    } elsif ($do eq 'stderr') {
        $err->("stderr:$arg{mark}\n");
        $head->();
        $out->("said\n");
    } elsif ($do eq 'die') {
        if ($arg{when} ne 'before') {
            $head->($arg{when} eq 'length' ? "Content-Length: 400000\r\n" : ());
            pattern($out, 0, 100000);
            $flush->();
            select undef, undef, undef, 0.1;
        }
        kill KILL => $$;
    } else {
        $head->();
        $out->("what?\n");
    }
}

if (($ARGV[0] // '') eq 'guard') {
    require FCGI::Guard;
    my $loop = FCGI::Guard->responder;
    while (my $request = $loop->accept) {
        my $in = sub { $request->read(my $piece, 65536); $piece // '' };
        answer($request->params, $in, sub { $request->print(@_) }, sub { $request->flush }, sub { $request->error(@_) });
        $request->finish;
    }
} else {
    require FCGI;
    my %env;
    my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%env, 0);
    while ($request->Accept() >= 0) {
        my $in = sub { read STDIN, my $piece, 65536; $piece // '' };
        answer(\%env, $in, sub { print STDOUT @_ }, sub { $request->Flush }, sub { print STDERR @_ });
        $request->Finish;
    }
}
