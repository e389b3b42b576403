<?php
// The matrix's worker in PHP: `php worker.php AUTOLOAD` on FcgiGuard\Worker; a plain page under php-cgi.
// What it answers is selected by the query string; workers.py has the list.

function block(): string
{
    static $block = null;
    if ($block === null) {
        $block = '';
        for ($i = 0; $i < 65521; $i++) $block .= chr(($i * 31 + ($i >> 8) * 17) & 255);
    }
    return $block;
}

function pattern(callable $out, int $from, int $len): void
{
    while ($len > 0) {
        $piece = substr(block(), $from % 65521, $len);
        $out($piece);
        $from += strlen($piece);
        $len -= strlen($piece);
    }
}

/** $in is the body as a stream. */
function answer(array $env, $in, callable $header, callable $status, callable $out, callable $flush, callable $err): void
{
    parse_str($env['QUERY_STRING'] ?? '', $arg);
    [$do, $n, $ms] = [$arg['do'] ?? '', (int) ($arg['n'] ?? 0), (int) ($arg['ms'] ?? 0)];
    $header('Content-Type', 'application/octet-stream');
    $header('X-Worker', (string) getmypid());
    if ($do === 'env') {
        foreach ($env as $name => $value) if (is_string($value)) $out("$name=$value\n");
    } elseif ($do === 'echo') {
        $out(stream_get_contents($in));
    } elseif ($do === 'sum') {
        [$sum, $whole] = [hash_init('crc32b'), 0];
        while (($piece = fread($in, 65536)) !== false && $piece !== '') {
            hash_update($sum, $piece);
            $whole += strlen($piece);
        }
        $out("$whole " . hash_final($sum) . "\n");
    } elseif ($do === 'big' || $do === 'fixed') {
        if ($do === 'fixed') $header('Content-Length', (string) $n);
        pattern($out, 0, $n);
    } elseif ($do === 'slow') {
        for ($i = 0; $i < 4; $i++) {
            pattern($out, $i * intdiv($n, 4), intdiv($n, 4));
            $flush();
            usleep(1000 * $ms);
        }
    } elseif ($do === 'late') {
        usleep(1000 * $ms);
        $out("late\n");
    } elseif ($do === 'empty') {
    } elseif ($do === 'status') {
        $status(404);
        $header('Set-Cookie', 'a=1');
        $header('Set-Cookie', 'b=2');
        $out("not here\n");
    } elseif ($do === 'headers') {
        for ($i = 0; $i < $n; $i++) $header("X-H-$i", "value-$i");
        $out("headers\n");
    } elseif ($do === 'stderr') {
        $err("stderr:{$arg['mark']}");
        $out("said\n");
    } elseif ($do === 'die') {
        if ($arg['when'] !== 'before') {
            if ($arg['when'] === 'length') $header('Content-Length', '400000');
            pattern($out, 0, 100000);
            $flush();
            usleep(100000);
        }
        posix_kill(getmypid(), 9);
    } else {
        $out("what?\n");
    }
}

if (PHP_SAPI === 'cli') {
    require $argv[1];
    $worker = new FcgiGuard\Worker();
    while ($request = $worker->accept()) {
        $header = fn ($name, $value) => $request->header($name, $value, $name !== 'Set-Cookie');
        $out = function ($bytes) { echo $bytes; };
        answer($_SERVER, $request->body, $header, fn ($code) => $request->status($code), $out, fn () => $request->flush(),
            fn ($text) => $request->error("$text\n"));
    }
} else {
    $header = fn ($name, $value) => header("$name: $value", $name !== 'Set-Cookie');
    $out = function ($bytes) { echo $bytes; };
    answer($_SERVER, fopen('php://input', 'r'), $header, fn ($code) => http_response_code($code), $out,
        function () { if (ob_get_level()) ob_flush(); flush(); }, fn ($text) => error_log($text));
}
