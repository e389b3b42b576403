<?php

declare(strict_types=1);

// A small application as Worker behind nginx under a guarded pool: COUNT requests (100 000 unless told), with reloads on the way.
// Run: php -d ffi.enable=true tests/nginx.php [COUNT]

namespace FcgiGuard\Tests;

use FcgiGuard\Client;
use FcgiGuard\Pool;

require __DIR__ . '/bootstrap.php';
require __DIR__ . '/Servers.php';

$count = (int) ($argv[1] ?? 100_000);
$servers = new Servers();
$failed = $passed = 0;
$check = static function (bool $ok, string $what) use (&$failed, &$passed): void {
    $ok ? $passed++ : $failed++;
    echo $ok ? '' : "FAIL $what\n";
};
$servers->pool('site', __DIR__ . '/apps/site_worker.php', 2);
$servers->nginx(['site' => '/none']);
$pool = new Pool("$servers->folder/site.ctl");
$path = static fn (int $n): string => $n % 2 === 0 ? "/site/?n=$n" : '/site/section' . $n % 100 . "/$n";
$servers->load(10, 1, $path, static fn (): bool => true);
$good = static fn (int $n, string $body): bool => str_contains($body, $n % 2 === 0 ? '<li>item &lt;29&gt;</li></ul>' : '<!doctype');
// nginx passes /site/section7/3 on as it is: the application knows no such route, so the last one answers.

// What the workers hold, by their own count, after the first requests and at the end.
$memory = static function () use ($servers): array {
    $found = [];
    for ($n = 0; $n < 60; $n++) {
        [$bytes, $pid] = explode(' ', (new Client("$servers->folder/site.sock", '20s'))->request(query: 'memory=1')->text());
        // PHP's own count, and in pages what the kernel sees: C's memory too.
        $found[$pid] = [(int) $bytes, (int) explode(' ', (string) @file_get_contents('/proc/' . trim($pid) . '/statm'))[1]];
    }
    return $found;
};
[$well, $seconds, $bad] = $servers->load(intdiv($count, 2), 8, $path, $good, [1000 => static function () use (&$before, $memory): void {
    $before = $memory();
}]);
$after = $memory();
$growth = $pages = 0;
foreach ($after as $pid => [$bytes, $resident]) {
    $growth = max($growth, $bytes - ($before[$pid][0] ?? $bytes));
    $pages = max($pages, $resident - ($before[$pid][1] ?? $resident));
}
$check($well === intdiv($count, 2), 'every request is answered: ' . implode("\n", $bad));
$check(array_intersect_key($after, $before ?? []) !== [], 'the same workers serve from beginning to end');
$check($growth < 20_000 && $pages < 100, "memory stays flat: $growth bytes and $pages pages more");
$status = $pool->status();
$check($status['counters']['crashed'] === 0, 'no worker crashed');
printf("nginx: %d requests in %.1f s; memory of the workers (bytes by PHP's count, resident pages) after 1000 and %d: %s and %s\n", $well, $seconds, $well, json_encode($before), json_encode($after));

// Reloads under load.
$every = max(500, intdiv($count, 20));
$reloads = [];
for ($n = $every; $n < intdiv($count, 2); $n += $every) {
    $reloads[$n] = static fn () => $pool->reload(wait: false);
}
[$well, $seconds, $bad] = $servers->load(intdiv($count, 2), 8, $path, $good, $reloads);
$check($well === intdiv($count, 2), 'none is lost by reloads: ' . implode("\n", $bad));
$done = $pool->status()['counters']['reloads_ok'];
$check($done >= 2, "$done reloads were done");
$check(trim((string) @file_get_contents("$servers->folder/nginx.error")) === '', 'nginx has nothing to complain of: ' . @file_get_contents("$servers->folder/nginx.error"));
printf("nginx: %d requests in %.1f s through %d reloads\n", $well, $seconds, $done);
unset($pool);
$servers->__destruct();
echo "nginx: $passed passed, $failed failed\n";
exit($failed === 0 ? 0 : 1);
