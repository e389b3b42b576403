<?php

declare(strict_types=1);

// The client against a real php-fpm, and Pool against a real manager. Included by run.php, which has $folder and check().

namespace FcgiGuard\Tests;

use FcgiGuard\Client;
use FcgiGuard\Exception\ConnectionException;
use FcgiGuard\Exception\PoolException;
use FcgiGuard\Exception\ProtocolException;
use FcgiGuard\Exception\SystemException;
use FcgiGuard\Exception\UsageException;
use FcgiGuard\Pool;
use FcgiGuard\Probe;

/** Waits until $done is true, at most 20 s. */
function wait_for(callable $done): bool
{
    for ($end = microtime(true) + 20; microtime(true) < $end; usleep(10_000)) {
        if ($done()) {
            return true;
        }
    }
    return false;
}

$fpm = max(glob('/usr/sbin/php-fpm*') ?: ['']);
check($fpm !== '', 'php-fpm is installed');
// FPM refuses to be root without -R, and wants a user and group then.
$user = posix_geteuid() === 0 ? "user = root\ngroup = root\n" : '';
file_put_contents("$folder/fpm.conf", "[global]\nerror_log = $folder/fpm.log\ndaemonize = no\n[www]\n{$user}listen = $folder/fpm.sock\n"
    . "pm = static\npm.max_children = 2\nphp_admin_value[post_max_size] = 64M\nphp_admin_value[display_errors] = off\n");
file_put_contents("$folder/app.php", <<<'PHP'
    <?php
    header('X-Two: one');
    header('X-Two: two', false);
    http_response_code((int) ($_GET['code'] ?? 200));
    if (isset($_GET['say'])) error_log($_GET['say']);
    if (isset($_GET['sleep'])) sleep((int) $_GET['sleep']);
    if (isset($_GET['die'])) exec('kill -9 ' . getmypid());
    if (isset($_GET['megabytes'])) {
        for ($n = 0; $n < $_GET['megabytes']; $n++) echo str_repeat(chr(65 + $n % 26), 1 << 20);
        exit;
    }
    $body = file_get_contents('php://input');
    echo json_encode([$_SERVER['REQUEST_METHOD'], strlen($body), md5($body), bin2hex($_SERVER['EXTRA'] ?? ''), $_SERVER['SCRIPT_NAME'], $_GET['a'] ?? null]);
    PHP);
$server = proc_open([$fpm, '-n', '-F', '-R', '-y', "$folder/fpm.conf"], [1 => ['file', '/dev/null', 'w'], 2 => ['file', '/dev/null', 'w']], $pipes);
check(wait_for(static fn () => Probe::check("$folder/fpm.sock", timeout: '5s')->isAlive()), 'php-fpm starts');

foreach ([false, true] as $keep) {
    $client = new Client("$folder/fpm.sock", timeout: '60s', keepConn: $keep);
    $ask = static fn (mixed ...$more) => $client->request("$folder/app.php", ...$more);

    $response = $ask(query: 'a=b', params: ['EXTRA' => "\xe4\xff"]);
    check($response->status === 200 && $response->header('x-two') === 'one' && $response->headers('X-Two') === ['one', 'two'], 'the head of a GET');
    check($response->appStatus() === -1, 'no status before the end');
    check(json_decode($response->text()) === ['GET', 0, md5(''), 'e4ff', '/app.php', 'b'], 'its params, which are bytes');
    check($response->appStatus() === 0 && $response->protocolStatus() === 0 && $response->errors() === '', 'and its end');
    check($client->isConnected() === $keep, 'the connection is kept when that was asked for');

    $response = $ask(query: 'code=404&say=oh-dear');
    check($response->status === 404 && json_decode($response->text())[0] === 'GET', 'a status and its body');
    check(str_contains($response->errors(), 'oh-dear'), 'STDERR is apart');

    $body = random_bytes(1 << 20);
    $body = str_repeat($body, 16);
    check(json_decode($ask(body: $body)->text()) === ['POST', 16 << 20, md5($body), '', '/app.php', null], 'a body of 16 MB');
    file_put_contents("$folder/body", $body);
    $file = fopen("$folder/body", 'r');
    fseek($file, 1 << 20);
    check(json_decode($ask(body: $file, method: 'PUT')->text())[1] === 15 << 20, 'a file from where it stands');
    $pieces = (static function () {
        yield 'one';
        yield '';
        yield 'two';
    })();
    check(json_decode($ask(body: $pieces)->text())[2] === md5('onetwo'), 'pieces');

    $size = $wrong = 0;
    $memory = memory_get_usage();
    foreach ($ask(query: 'megabytes=32')->body() as $piece) {
        $wrong += strlen(trim($piece, implode(range('A', 'Z'))));
        $size += strlen($piece);
    }
    check($size === 32 << 20 && $wrong === 0, 'an answer of 32 MB, in pieces');
    check(memory_get_usage() - $memory < 1 << 20, 'which is not gathered');

    // More aborts than there are workers: one that did not free its worker would end in a timeout.
    for ($n = 0; $n < 3; $n++) {
        $response = $ask(query: 'megabytes=256');
        $response->body()->current();
        $response->abort();
    }
    check($ask()->status === 200, 'after aborts the next is served');
    $stale = $ask(query: 'megabytes=4');
    check($ask()->status === 200, 'an answer that was not read is given up');
    $error = thrown(static fn () => $stale->text());
    check($error instanceof UsageException && $error->name === 'wrong_state', 'and cannot be read any more');

    $error = thrown(static fn () => $ask(query: 'die=1'));
    check($error instanceof ConnectionException && $error->name === 'closed', 'a worker that dies closes: ' . $error?->getMessage());
    check(json_decode($ask(body: 'x')->text())[1] === 1, 'and the next request finds another one');
}

if (pcntl_available()) {
    $client = new Client("$folder/fpm.sock", timeout: '20s');
    $seen = 0;
    pcntl_async_signals(true);
    pcntl_signal(SIGALRM, static function () use (&$seen): void {
        $seen++;
    });
    pcntl_alarm(1);
    check($client->request("$folder/app.php", query: 'sleep=2')->status === 200 && $seen === 1, 'a signal handler runs while a call waits');
    pcntl_signal(SIGALRM, static fn () => throw new \DomainException('enough'));
    pcntl_alarm(1);
    $begun = microtime(true);
    try {
        $client->request("$folder/app.php", query: 'sleep=12');
        check(false, 'a handler that throws ends the wait');
    } catch (\DomainException) {
        check(microtime(true) - $begun < 11, 'a handler that throws ends the wait');
    }
    pcntl_signal(SIGALRM, SIG_DFL);
}

$client = new Client("$folder/fpm.sock", timeout: '300ms');
$error = thrown(static fn () => $client->request("$folder/app.php", query: 'sleep=3'));
check($error instanceof SystemException && $error->name === 'timeout' && str_starts_with($error->getMessage(), 'receive:'), 'slow is a timeout in its phase');
$error = thrown(static fn () => $client->request("$folder/app.php", body: 3));
check($error instanceof UsageException, 'a body of a wrong type');
$error = thrown(static fn () => new Client('nonsense'));
check($error instanceof UsageException && $error->name === 'invalid_address', 'a wrong address');
$error = thrown(static fn () => new Client('/x', timeout: 'soon'));
check($error instanceof UsageException && $error->name === 'invalid_option', 'a wrong option');
$client = new Client("$folder/none.sock");
$error = thrown(static fn () => $client->request());
check($error instanceof ConnectionException && $error->name === 'no_socket' && $error->getCode() === -503, 'no server');

// Something that speaks HTTP.
$web = stream_socket_server("unix://$folder/web.sock");
$pid = pcntl_available() ? pcntl_fork() : -1;
if ($pid === 0) {
    $connection = stream_socket_accept($web, 20);
    fread($connection, 65536);
    fwrite($connection, "HTTP/1.1 400 Bad Request\r\n\r\n");
    posix_kill(getmypid(), 9); // Without the destructors of what the parent still uses.
}
if ($pid > 0) {
    $error = thrown(static fn () => (new Client("$folder/web.sock", timeout: '20s'))->request());
    check($error instanceof ProtocolException && $error->name === 'bad_version', 'a web server: ' . $error?->getMessage());
    pcntl_waitpid($pid, $status);
}
proc_terminate($server);
proc_close($server);

function pcntl_available(): bool
{
    return function_exists('pcntl_fork');
}

// A pool under a real manager.
$command = getenv('FCGIGUARD') ?: dirname(__DIR__, 3) . '/target/release/fcgiguard';
check(is_executable($command), "$command is built");
copy("$folder/app.php", "$folder/work.php");
$manager = proc_open([$command, 'run', '--listen', "$folder/pool.sock", '--workers', '2', '--control', "$folder/pool.ctl", '--', $cgi],
    [1 => ['file', '/dev/null', 'w'], 2 => ['file', "$folder/manager.log", 'w']], $pipes);
$pool = new Pool("$folder/pool.ctl", timeout: '30s');
$running = static fn () => thrown(static fn () => $pool->status()) === null && $pool->status()['state'] === 'running';
check(wait_for($running), 'the pool runs');
check(wait_for(static fn () => str_contains($pool->statusText(), '2 of 2 workers')), 'its status for people');
check(count($pool->status()['workers']) === 2, 'and for programs');
$before = array_column($pool->status()['workers'], 'pid');
check(str_contains($pool->reload(), 'generation 2'), 'a reload says what came of it');
$left = static fn () => array_intersect($before, array_column($pool->status()['workers'], 'pid'));
check(wait_for(static fn () => $left() === []), 'and all workers are new');
check(str_contains($pool->scale(3), '3 workers') && count($pool->status()['workers']) === 3, 'more workers');
$client = new Client("$folder/pool.sock", timeout: '20s');
check(json_decode($client->request("$folder/work.php", body: 'abc')->text())[1] === 3, 'the pool serves the client');
check(trim($pool->reload(wait: false)) === 'accepted', 'without waiting');
$error = thrown(static fn () => $pool->scale(-1));
check($error instanceof UsageException && $error->name === 'invalid_argument', 'a wrong number of workers');
check(is_string($pool->stop()), 'it ends');
check(wait_for(static fn () => !proc_get_status($manager)['running']), 'and is gone');
proc_close($manager);
$error = thrown(static fn () => $pool->status());
check($error instanceof PoolException && $error->name === 'no_control' && $error->getCode() === -607, 'no manager');
