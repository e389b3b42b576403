#!/bin/sh
# What: the Perl distribution: built as CPAN would, its tests, its only symbol; then again from its archive and an installed library
set -eu
root=$(pwd)
rm -rf target/check/perl target/check/perl-dist
mkdir -p target/check/perl-dist
cp -r bindings/perl target/check/perl
cd target/check/perl
# A build in the source folder leaves files that belong to no archive.
if [ -e Makefile ]; then make -s realclean >/dev/null 2>&1 || true; fi
rm -rf blib Makefile Makefile.old MYMETA.json MYMETA.yml pm_to_blib Guard.c Guard.o Guard.bs

/usr/bin/perl -MExtUtils::Manifest -e '
    $ExtUtils::Manifest::Quiet = 1;
    my ($missing, $extra) = ExtUtils::Manifest::fullcheck();
    die "MANIFEST names what is not there: @$missing\n" if @$missing;
    die "not in MANIFEST: @$extra\n" if @$extra;'
cp "$root/tests/vectors/vectors.txt" t/

export FCGIGUARD_LIB_DIR="$root/target/release" FCGIGUARD_INCLUDE_DIR="$root/include" FCGIGUARD="$root/target/release/fcgiguard"
/usr/bin/perl Makefile.PL
make
# Three files at a time: they wait more than they work.
export HARNESS_OPTIONS=j3
make test TEST_VERBOSE=0
prove -b xt/pod.t
symbols=$(nm -D --defined-only blib/arch/auto/FCGI/Guard/Guard.so | awk '{print $3}')
[ "$symbols" = boot_FCGI__Guard ] || { echo "Guard.so leaks symbols: $symbols"; exit 1; }

# The archive alone: it finds an installed library by pkg-config, and without one it says what is missing.
make -s dist >/dev/null
tar -xzf FCGI-Guard-*.tar.gz -C ../perl-dist
cd ../perl-dist
stage=$(pwd)/stage
mkdir -p "$stage/lib/pkgconfig" "$stage/include"
ln -s "$FCGIGUARD_LIB_DIR/libfcgiguard.a" "$stage/lib/"
ln -s "$FCGIGUARD_INCLUDE_DIR/fcgiguard.h" "$stage/include/"
unset FCGIGUARD_LIB_DIR FCGIGUARD_INCLUDE_DIR
cd FCGI-Guard-*/
if said=$(PKG_CONFIG_LIBDIR=/nonexistent PKG_CONFIG_PATH= /usr/bin/perl Makefile.PL 2>&1); then
    echo "Makefile.PL should have failed without a library"
    exit 1
fi
case $said in
*"pkg-config knows no fcgiguard"*) ;;
*) echo "Makefile.PL does not say what is missing: $said"; exit 1 ;;
esac
sed "s|@prefix@|$stage|; s|@version@|0|; s|@libdir@|lib|" "$root/include/fcgiguard.pc.in" >"$stage/lib/pkgconfig/fcgiguard.pc"
export PKG_CONFIG_PATH="$stage/lib/pkgconfig"
/usr/bin/perl Makefile.PL INSTALLDIRS=site
make -s
make -s test TEST_VERBOSE=0 TEST_FILES='t/01-probe.t t/03-pool.t t/04-symbols.t t/05-responder.t t/06-fcgi.t t/10-procmanager-contract.t'
make -s install DESTDIR="$stage/root"
PERL5LIB=$(find "$stage/root" -type d -path '*/FCGI/Guard' ! -path '*/auto/*' | sed 's|/FCGI/Guard$||' | paste -sd:)
export PERL5LIB
cd /
/usr/bin/perl -MFCGI::Guard=:fcgi -MFCGI::Guard::ProcManager=replace -e '
    use FCGI::ProcManager;
    $INC{"FCGI/Guard.pm"} =~ m{/stage/root/} or die "not the installed one: $INC{q{FCGI/Guard.pm}}\n";
    FCGI::ProcManager->new({ n_processes => 1 })->isa("FCGI::Guard::ProcManager") or die "not ours\n";
    print "installed: ", FCGI::Guard::library_version(), "\n"'
