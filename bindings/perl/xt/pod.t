use strict;
use warnings;
use Test::More;

# Every page parses, and every public sub of a class that programs use is described. Of Debian: libtest-pod-perl,
# libtest-pod-coverage-perl.
eval { require Test::Pod; require Test::Pod::Coverage; 1 }
    or plan skip_all => 'Test::Pod and Test::Pod::Coverage are not installed';
Test::Pod->import;
Test::Pod::Coverage->import;

my @pages = Test::Pod::all_pod_files('lib');
pod_file_ok($_) for @pages;

# Internal: their page says so, and names no sub.
my %internal = map { $_ => 1 } qw(FCGI::Guard::Image FCGI::Guard::FCGI
    FCGI::Guard::ProcManager::Accept FCGI::Guard::ProcManager::Sockets FCGI::Guard::ProcManager::Replace);
my %also = (
    # The handles' own calls, below the methods that are described.
    'FCGI::Guard'              => [qr/^(?:check_address|error_table|library_version|option_names|option_exec_only|listen_at)$/],
    'FCGI::Guard::Pool'        => [
        qr/^(?:[A-Z]+|notice|poll_ms|set|get|configure|open|listener|add_listener|new_handle|exit_code|set_image|worker)$/,
    ],
    'FCGI::Guard::Responder'   => [qr/^(?:attach|new_handle|open|set)$/],
    # Made by the client, and shown in the SYNOPSIS.
    'FCGI::Guard::Response'    => [qr/^new$/],
    (map { ("FCGI::Guard::ProcManager::$_" => [qr/^new$/]) } qw(Constrained Dynamic MaxRequests)),
    'FCGI::Guard::ProcManager' => [qr/^(?:[A-Z_]+|self_or_default|sig_sub|sig_method)$/],
);
for my $module (grep { !$internal{$_} } Test::Pod::Coverage::all_modules('lib')) {
    my @private = (qr/^CLONE_SKIP$/, @{ $also{$module} || [] });
    pod_coverage_ok($module, { also_private => \@private, coverage_class => 'Pod::Coverage::CountParents' });
}
done_testing;
