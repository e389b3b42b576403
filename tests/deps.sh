#!/bin/sh
# Installs what the build and the tests need, and says what it does. Nothing to do: a second, and one line.
#
# Packages of tests/packages.txt come from apt (as root, or through sudo); Python packages of tests/requirements.txt go into
# .deps/venv. Services of newly installed packages are neither started nor enabled: the tests start their own, on loopback.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'deps: %s\n' "$*"; }
die() { printf 'deps: %s\n' "$*" >&2; exit 1; }

wanted=$(sed 's/#.*//' tests/packages.txt | tr -s ' \t\n' ' ')

# --- Rust -------------------------------------------------------------------------------------------------------------
need_rust=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
command -v cargo >/dev/null || die "cargo is missing: install a Rust toolchain, $need_rust or later, and run this again"
have_rust=$(rustc --version | cut -d' ' -f2)
[ "$(printf '%s\n%s\n' "$need_rust" "$have_rust" | sort -V | head -n1)" = "$need_rust" ] ||
    die "Rust $have_rust is too old: $need_rust or later is needed"
for part in clippy fmt; do
    cargo $part --version >/dev/null 2>&1 || die "cargo $part is missing: add the clippy and rustfmt components of your toolchain"
done

# --- apt --------------------------------------------------------------------------------------------------------------
missing=
if command -v dpkg-query >/dev/null; then
    for package in $wanted; do
        case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
        ii*) ;;
        *) missing="$missing $package" ;;
        esac
    done
else
    die "this is neither Debian nor Ubuntu; install by hand what these packages hold: $wanted"
fi

as_root=
if [ -n "$missing" ] && [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=sudo
    else
        die "these packages are missing, and installing them needs root or sudo:
  apt-get install$missing"
    fi
fi

if [ -n "$missing" ]; then
    say "apt-get install$missing"
    # policy-rc.d is asked before a package's service is started; 101 forbids it.
    policy=/usr/sbin/policy-rc.d
    restore=
    if [ ! -e $policy ]; then
        restore="rm -f $policy"
    elif ! { $policy nginx start >/dev/null 2>&1; [ $? = 101 ]; }; then
        $as_root mv $policy $policy.before-fcgiguard
        restore="mv $policy.before-fcgiguard $policy"
    fi
    if [ -n "$restore" ]; then
        # shellcheck disable=SC2064 # both are known now
        trap "$as_root $restore" EXIT
        trap 'exit 130' INT TERM HUP
        printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
        $as_root chmod 755 $policy
    fi
    log=$(mktemp)
    install_missing() {
        # shellcheck disable=SC2086 # a list of words
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
            install --no-install-recommends $missing </dev/null >"$log" 2>&1
    }
    # The lists may be absent or old; an update is tried only when they are, since it is the slow half.
    install_missing || {
        $as_root apt-get -q update </dev/null >>"$log" 2>&1 || true
        install_missing || { tail -n 20 "$log" >&2; die "apt-get install failed; its last lines are above"; }
    }
    rm -f "$log"
    # Without this the next boot would start nginx on port 80.
    if command -v systemctl >/dev/null; then
        for package in $missing; do
            dpkg -L "$package" 2>/dev/null | sed -n 's,.*/systemd/system/\([^/@]*\.\(service\|socket\)\)$,\1,p'
        done | sort -u | while read -r unit; do
            $as_root systemctl disable "$unit" </dev/null >/dev/null 2>&1 || true
        done
    fi
fi

# --- Python -----------------------------------------------------------------------------------------------------------
# Debian's own interpreter unless PYTHON names another, so that uwsgi-plugin-python3 and the venv are of one version.
python=${PYTHON:-/usr/bin/python3}
venv=.deps/venv
stamp=$venv/fcgiguard-stamp
want="$($python --version) $(cksum <tests/requirements.txt)"
pip_done=
if [ "$(cat $stamp 2>/dev/null)" != "$want" ]; then
    say "pip install into $venv: $(sed 's/#.*//; /^ *$/d; s/ *$//' tests/requirements.txt | tr '\n' ' ')"
    [ -x $venv/bin/python ] || { rm -rf $venv; $python -m venv $venv; }
    $venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt </dev/null ||
        die "pip failed; its words are above"
    printf '%s\n' "$want" >$stamp
    pip_done=1
fi

[ -n "$missing$pip_done" ] && say "done" || say "nothing to install"
