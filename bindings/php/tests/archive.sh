#!/bin/bash
# The package as others get it: `composer archive`, required by a project of its own, with an installed library and no source tree.
set -eu
cd "$(dirname "$0")/../../.."
command -v composer >/dev/null || { echo "archive: composer is not installed"; [ "${FCGIGUARD_ALLOW_SKIP:-}" = 1 ]; exit; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export COMPOSER_ALLOW_SUPERUSER=1 COMPOSER_HOME=$work/home COMPOSER_DISABLE_NETWORK=1
version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n1)
quietly() { "$@" >"$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }; }

quietly composer archive --working-dir=bindings/php --format=zip --dir="$work" --file=package
mkdir "$work/package" "$work/project"
python3 -m zipfile -e "$work/package.zip" "$work/package"
[ ! -e "$work/package/tests" ] && [ -s "$work/package/LICENSE-MIT" ] && [ -s "$work/package/README.md" ]
cat >"$work/project/composer.json" <<JSON
{
    "name": "some/project",
    "require": {"fcgiguard/fcgiguard": "$version"},
    "repositories": [
        {"packagist.org": false},
        {"type": "path", "url": "$work/package", "options": {"symlink": false, "versions": {"fcgiguard/fcgiguard": "$version"}}}
    ]
}
JSON
quietly composer install --working-dir="$work/project" --no-interaction
quietly make -s install DESTDIR="$work/root" PREFIX=/usr
rm -rf "$work/package"

cd "$work/project"
cat >worker.php <<'PHP'
<?php
require 'vendor/autoload.php';
$worker = new FcgiGuard\Worker();
while ($request = $worker->accept()) {
    header('X-Page: ' . ($_GET['page'] ?? 'none'));
    echo 'hello';
}
PHP
cat >asks.php <<'PHP'
<?php
require 'vendor/autoload.php';
for ($end = microtime(true) + 20; !FcgiGuard\Probe::check($argv[1], timeout: '5s')->isAlive() && microtime(true) < $end; usleep(20_000));
$response = (new FcgiGuard\Client($argv[1], timeout: '10s'))->request(query: 'page=2');
[$status, $text] = [$response->status, $response->text()];
// A listening socket is there before the control socket is.
for ($end = microtime(true) + 20; !file_exists($argv[2]) && microtime(true) < $end; usleep(20_000));
(new FcgiGuard\Pool($argv[2]))->stop();
exit($status === 200 && $text === 'hello' && $response->header('X-Page') === '2' ? 0 : 1);
PHP
export FCGIGUARD_LIB=$work/root/usr/lib/libfcgiguard.so.0
"$work/root/usr/bin/fcgiguard" run --listen "$work/a.sock" --control "$work/a.ctl" --workers 2 -- php worker.php 2>"$work/pool.log" &
pool=$!
timeout 60 php asks.php "$work/a.sock" "$work/a.ctl" || { cat "$work/pool.log"; kill $pool; exit 1; }
wait $pool
vendor/bin/fcgiguard-ffi-header | grep -q fcgiguard_probe_run
echo "archive: installed by composer from its archive, asked and served with an installed library"
