<?php

declare(strict_types=1);

// Client beside a client in pure PHP, at one php-fpm: the same answers case by case, then time and CPU in turns.
// php -d ffi.enable=true tests/peer.php [ROUNDS]        (0: the answers alone, for `make check`)
// PEER=/path/vendor/autoload.php adds hollodotme/fast-cgi-client from there.

namespace FcgiGuard\Tests;

use FcgiGuard\Client;

require __DIR__ . '/bootstrap.php';
require __DIR__ . '/Servers.php';
require __DIR__ . '/PlainClient.php';
ini_set('memory_limit', '512M');

$rounds = (int) ($argv[1] ?? 5);
$servers = new Servers();
$servers->fpm('fpm', 8, ['post_max_size' => '64M', 'display_errors' => 'off']);
// A kept connection has its worker for itself.
$socket = "$servers->folder/fpm.sock";
$script = __DIR__ . '/apps/fpm_cases.php';

/** What a web server would send, the same for all. @return array<string, string> */
function params(string $script, string $query, string $body): array
{
    return ['GATEWAY_INTERFACE' => 'CGI/1.1', 'SERVER_PROTOCOL' => 'HTTP/1.1', 'SERVER_NAME' => 'localhost', 'SERVER_PORT' => '80',
        'REMOTE_ADDR' => '127.0.0.1', 'REQUEST_METHOD' => $body === '' ? 'GET' : 'POST', 'SCRIPT_FILENAME' => $script, 'SCRIPT_NAME' => '/cases.php',
        'REQUEST_URI' => "/cases.php?$query", 'QUERY_STRING' => $query, 'CONTENT_TYPE' => $body === '' ? '' : 'application/octet-stream',
        'CONTENT_LENGTH' => $body === '' ? '' : (string) strlen($body)];
}

// Each client: a query, a body, a limit of time in seconds -> HTTP status, body, STDERR; or the kind of failure.
$clients = [];
foreach (['a connection each' => false, 'kept' => true] as $way => $keep) {
    $made = [];
    $clients["Client, $way"] = static function (string $query, string $body, float $limit) use ($socket, $script, $keep, &$made): array|string {
        $client = $made["$limit"] ??= new Client($socket, timeout: (int) ($limit * 1000) . 'ms', keepConn: $keep);
        try {
            $response = $client->request($script, query: $query, params: params($script, $query, $body), body: $body === '' ? null : $body);
            return [$response->status, $response->text(), $response->errors()];
        } catch (\FcgiGuard\Exception\FcgiGuardException $error) {
            return $error->name === 'truncated' ? 'closed' : $error->name; // the others do not tell them apart
        }
    };
    $plain = [];
    $clients["pure PHP, $way"] = static function (string $query, string $body, float $limit) use ($socket, $script, $keep, &$plain): array|string {
        $client = $plain["$limit"] ??= new PlainClient($socket, $limit, $keep);
        try {
            return array_slice($client->request(params($script, $query, $body), $body), 0, 3);
        } catch (\RuntimeException $error) {
            return $error->getMessage();
        }
    };
    unset($made, $plain);
}
if (($peer = getenv('PEER')) !== false) {
    require $peer;
    $hollodotme = new \hollodotme\FastCGI\Client();
    $clients['hollodotme/fast-cgi-client'] = static function (string $query, string $body, float $limit) use ($socket, $script, $hollodotme): array|string {
        $connection = new \hollodotme\FastCGI\SocketConnections\UnixDomainSocket($socket, 5000, (int) ($limit * 1000));
        $class = '\hollodotme\FastCGI\Requests\\' . ($body === '' ? 'GetRequest' : 'PostRequest');
        $request = new $class($script, $body);
        $request->addCustomVars(params($script, $query, $body));
        try {
            $response = $hollodotme->sendRequest($connection, $request);
        } catch (\hollodotme\FastCGI\Exceptions\TimedoutException) {
            return 'timeout';
        } catch (\hollodotme\FastCGI\Exceptions\FastCGIClientException) {
            return 'closed';
        }
        $status = (int) ($response->getHeader('Status')[0] ?? 200);
        return [$status, $response->getBody(), $response->getError()];
    };
}

$large = str_repeat(random_bytes(1 << 16), 256);
$cases = [ // query, body, limit, what each is to say: status, bytes of the body or its text, words of STDERR
    'GET' => ['a=b', '', 20, static fn (array|string $said): bool => is_array($said) && $said[0] === 200 && json_decode($said[1], true)['query'] === ['a' => 'b']],
    'GET, 404' => ['code=404', '', 20, static fn (array|string $said): bool => is_array($said) && $said[0] === 404],
    'POST of 16 MB' => ['', $large, 20, static fn (array|string $said): bool => is_array($said) && json_decode($said[1], true)['md5'] === md5($large)],
    'answer of 32 MB' => ['megabytes=32', '', 20, static fn (array|string $said): bool => is_array($said) && strlen($said[1]) === 32 << 20],
    'STDERR' => ['say=oh-dear', '', 20, static fn (array|string $said): bool => is_array($said) && str_contains($said[2], 'oh-dear')],
    'aborted: the worker dies' => ['die=1', '', 20, static fn (array|string $said): bool => $said === 'closed'],
    'aborted: it dies in the answer' => ['megabytes=1&die=late', '', 20, static fn (array|string $said): bool => $said === 'closed'],
    'GET after it' => ['', '', 20, static fn (array|string $said): bool => is_array($said) && $said[0] === 200],
    'slow, within the limit' => ['sleep=300', '', 20, static fn (array|string $said): bool => is_array($said) && $said[0] === 200],
    'slow, beyond it' => ['sleep=900', '', 0.2, static fn (array|string $said): bool => $said === 'timeout'],
];
$passed = $failed = 0;
foreach ($cases as $name => [$query, $body, $limit, $right]) {
    $found = [];
    foreach ($clients as $who => $ask) {
        $said = $ask($query, $body, $limit);
        $found[$who] = is_array($said) ? [$said[0], md5($said[1])] : $said;
        $right($said) ? $passed++ : $failed++;
        if (!$right($said)) {
            echo "FAIL $name, $who: ", substr((string) json_encode($said), 0, 300), "\n";
        }
        if ($limit < 1) {
            usleep(900_000); // until its worker has awoken
        }
    }
    count(array_unique(array_map('serialize', $found))) === 1 ? $passed++ : $failed++;
    if (count(array_unique(array_map('serialize', $found))) !== 1) {
        echo "FAIL $name: not all say the same: ", json_encode($found), "\n";
    }
}
echo 'peer: ', count($cases), ' cases with ', count($clients), " clients, $passed passed, $failed failed\n";
if ($rounds === 0 || $failed > 0) {
    exit($failed === 0 ? 0 : 1);
}

/** CPU seconds of this process. */
function own(): float
{
    $usage = getrusage() ?: [];
    return $usage['ru_utime.tv_sec'] + $usage['ru_stime.tv_sec'] + ($usage['ru_utime.tv_usec'] + $usage['ru_stime.tv_usec']) / 1e6;
}
$middle = static function (array $of): float {
    sort($of);
    return $of[intdiv(count($of), 2)];
};
foreach (['GET' => 2000, 'POST of 16 MB' => 5, 'answer of 32 MB' => 5] as $name => $count) {
    [$query, $body, $limit] = $cases[$name];
    $rows = [];
    for ($round = 0; $round < $rounds; $round++) {
        foreach ($clients as $who => $ask) {
            $ask('', '', $limit);
            [$cpu, $took] = [own(), []];
            for ($n = 0; $n < $count; $n++) {
                $begin = hrtime(true);
                $ask($query, $body, $limit);
                $took[] = (hrtime(true) - $begin) / 1e3;
            }
            $rows[$who][] = [$middle($took), (own() - $cpu) / $count * 1e6];
        }
    }
    printf("%-32s %14s %16s   (%s, median of %d rounds of %d)\n", '', 'us to answer', 'own CPU us each', $name, $rounds, $count);
    foreach ($rows as $who => $found) {
        printf("%-32s %14.0f %16.0f\n", $who, $middle(array_column($found, 0)), $middle(array_column($found, 1)));
    }
}
