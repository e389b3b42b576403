<?php

declare(strict_types=1);

// A worker in the form of a handler: what the tests of reload, memory and the benchmark serve.

use FcgiGuard\Request;
use FcgiGuard\Worker;

require __DIR__ . '/../../autoload.php';

$booted = microtime(true);
(new Worker($argv[1] ?? null))->run(static function (Request $request) use ($booted): string {
    if (isset($_GET['throw'])) {
        if ($_GET['throw'] === 'late') {
            echo 'partly';
            $request->flush();
        }
        throw new RuntimeException("thrown\nin a handler");
    }
    if (isset($_GET['memory'])) {
        return memory_get_usage() . ' ' . getmypid();
    }
    header('Content-Type: text/plain');
    $name = htmlspecialchars((string) ($_GET['name'] ?? 'world'));
    return "Hello $name from " . getmypid() . " booted at $booted\n";
});
