use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Managed;
use Time::HiRes qw(sleep time);

# What a request may do with processes and signals, in a worker of ours.
(my $loop = $Managed::LOOP) =~ s/(    print "Content-Type)/    our %done; do_it(\$what, \$for, \$pm) if \$what;\n$1/ or die;
my $app = Managed->new(key => { n_processes => 1, die_timeout => 20 }, program => <<'CODE' . $loop);
sub note_down { open my $out, '>>', 'notes'; syswrite $out, "@_\n" }
sub do_it {
    my ($what, $for, $pm) = @_;
    if ($what eq 'system') { note_down("system ", system('true'), system('sh', '-c', 'exit 3') >> 8, scalar(qx(echo out))) }
    elsif ($what eq 'alarm') { eval { local $SIG{ALRM} = sub { die "alarm\n" }; alarm 1; select undef, undef, undef, 10; }; note_down("alarm $@") }
    elsif ($what eq 'fork') {
        # A child that lives on has nothing to do with the pool: TERM ends it, and its end harms nobody.
        my $pid = fork // die;
        if (!$pid) { sleep 60; require POSIX; POSIX::_exit(0) }
        note_down("child $pid");
    }
    elsif ($what eq 'die') { eval { die "in a request\n" }; note_down("died $@") }
    elsif ($what eq 'harakiri') { $pm->pm_exit('enough', 0) }
    elsif ($what eq 'end') { note_down('END block to come') }
}
END { note_down("END $$") if defined &note_down }
CODE
sub notes { open my $in, '<', "$app->{dir}/notes" or return ''; local $/; scalar <$in> }
$app->up;
my ($worker) = $app->workers;
ok $app->ask("$_=1"), "a request with $_" for qw(system alarm fork die);
like notes(), qr/^system  0 3 out$/m, 'system and backticks give what they ran';
like notes(), qr/^alarm alarm$/m, 'alarm';
my ($child) = notes() =~ /^child (\d+)$/m;
ok $app->alive($child), "a request's child lives on";
is +(kill TERM => $child), 1;
$app->wait_for('and TERM ends it', sub { !$app->alive($child) });
is +($app->workers)[0], $worker, 'the worker is the same';
ok $app->ask;
kill TERM => $worker;
$app->wait_for('its END blocks run when it leaves', sub { notes() =~ /^END $worker$/m });
ok $app->ask, 'another serves';
is $app->stop, 0;
like notes(), qr/^END $app->{pid}$/m, "the manager's too";

done_testing;
