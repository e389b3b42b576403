<?php

declare(strict_types=1);

$site = require __DIR__ . '/site.php';
(new FcgiGuard\Worker($argv[1] ?? null))->run(static function () use ($site): string {
    if (isset($_GET['memory'])) {
        return memory_get_usage() . ' ' . getmypid();
    }
    return $site($_SERVER['REQUEST_URI']);
});
