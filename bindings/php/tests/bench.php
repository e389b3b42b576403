<?php

declare(strict_types=1);

// Requests per second and CPU per request: a Worker under a guarded pool beside php-fpm with opcache, same page, same nginx.
// Run by hand: php -d ffi.enable=true tests/bench.php [COUNT]

namespace FcgiGuard\Tests;

require __DIR__ . '/bootstrap.php';
require __DIR__ . '/Servers.php';

$count = (int) ($argv[1] ?? 20_000);
$servers = new Servers();
$apps = __DIR__ . '/apps';
$pids = [
    'hello_worker' => $servers->pool('hello_worker', "$apps/handler.php", 2),
    'site_worker' => $servers->pool('site_worker', "$apps/site_worker.php", 2),
    'hello_fpm' => $servers->fpm('hello_fpm', 2),
    'site_fpm' => $servers->fpm('site_fpm', 2),
];
$servers->nginx(['hello_worker' => '/none', 'site_worker' => '/none', 'hello_fpm' => "$apps/hello_fpm.php", 'site_fpm' => "$apps/site_fpm.php"]);
$good = static fn (int $n, string $body): bool => str_contains($body, 'Hello ') || str_contains($body, '<li>item &lt;29&gt;</li></ul>');
$rows = [];
// Rounds in turn, so that what else the machine does falls on all alike; the middle one counts.
for ($round = 0; $round < 5; $round++) {
    foreach ($pids as $name => $pid) {
        $path = static fn (int $n): string => "/$name/?name=$n";
        $servers->load(500, 8, $path, $good);
        $cpu = Servers::cpu($pid);
        [$well, $seconds, $bad] = $servers->load($count, 8, $path, $good);
        if ($well !== $count) {
            exit("$name: " . implode("\n", $bad) . "\n");
        }
        $rows[$name][] = [(Servers::cpu($pid) - $cpu) / $count * 1e6, $count / $seconds];
    }
}
printf("%-14s %14s %12s   (median of 5 rounds of %d requests, 8 connections, 2 workers)\n", '', 'CPU us/request', 'requests/s', $count);
foreach ($rows as $name => $found) {
    [$cpu, $rate] = [array_column($found, 0), array_column($found, 1)];
    sort($cpu);
    sort($rate);
    printf("%-14s %14.1f %12.0f\n", $name, $cpu[2], $rate[2]);
}
