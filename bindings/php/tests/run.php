<?php

declare(strict_types=1);

// Runs the package's tests without any other package: php -d ffi.enable=true tests/run.php

namespace FcgiGuard\Tests;

use FcgiGuard\Exception\FcgiGuardException;
use FcgiGuard\Exception\UsageException;
use FcgiGuard\Library;
use FcgiGuard\Probe;

require __DIR__ . '/../autoload.php';

$passed = $failed = 0;

function check(bool $ok, string $what): void
{
    global $passed, $failed;
    $ok ? $passed++ : $failed++;
    if (!$ok) {
        echo "FAIL $what\n";
    }
}

/** Every shared vector: whole, byte by byte, at every split, and with trailing bytes. */
function vectors(string $file): void
{
    $ffi = Library::load();
    $vectors = $runs = $bad = 0;
    foreach (file($file, FILE_IGNORE_NEW_LINES) ?: [] as $line) {
        [$name, $side, $input, $trailing, $events, $output, $error] =
            array_map(static fn (string $f): string => $f === '-' ? '' : $f, explode("\t", $line));
        $want = [str_replace(' | ', "\n", $events), $output, $error];
        [$input, $trailing] = [(string) hex2bin($input), (string) hex2bin($trailing)];
        $ways = [[$input], $input === '' ? [] : str_split($input)];
        for ($at = 1; $at < strlen($input); $at++) {
            $ways[] = [substr($input, 0, $at), substr($input, $at)];
        }
        if ($trailing !== '') {
            $ways[] = [$input . $trailing];
        }
        $vectors++;
        foreach ($ways as $pieces) {
            $trace = $ffi->fcgiguard_trace_new($side);
            foreach ($pieces as $piece) {
                $ffi->fcgiguard_trace_feed($trace, $piece, strlen($piece), null);
            }
            $ffi->fcgiguard_trace_finish($trace, null);
            $found = [$ffi->fcgiguard_trace_events($trace), $ffi->fcgiguard_trace_output($trace), $ffi->fcgiguard_trace_error($trace)];
            $ffi->fcgiguard_trace_free($trace);
            $runs++;
            if ($found !== $want) {
                $bad++;
                echo "$name: found ", json_encode($found), "\n";
            }
        }
    }
    echo "vectors: $vectors vectors, $runs runs, $bad failed\n";
    check($bad === 0 && $vectors > 0, 'every vector in every way of feeding');
}

function thrown(callable $call): ?FcgiGuardException
{
    try {
        $call();
    } catch (FcgiGuardException $error) {
        return $error;
    }
    return null;
}

vectors(dirname(__DIR__, 3) . '/tests/vectors/vectors.txt');

$folder = sys_get_temp_dir() . '/fcgiguard-php-' . getmypid();
mkdir($folder);

$report = Probe::check("unix:$folder/none.sock", timeout: '1s');
check($report->verdict === 'no_socket' && $report->outcome === 'dead' && $report->exitCode === 2, 'nothing there is dead');
check(!$report->isAlive() && str_contains($report->line, 'no_socket'), 'and its line says so');

// A real php-cgi, asked both ways.
$cgi = trim((string) shell_exec('command -v php-cgi'));
check($cgi !== '', 'php-cgi is installed');
file_put_contents("$folder/hello.php", '<?php echo "hello from ", PHP_SAPI;');
$server = proc_open([$cgi, '-b', "$folder/php.sock"], [], $pipes, null, ['PHP_FCGI_CHILDREN' => '0'] + getenv());
for ($end = microtime(true) + 10; !file_exists("$folder/php.sock") && microtime(true) < $end;) {
    usleep(10_000);
}
$report = Probe::check("$folder/php.sock", timeout: '10s');
check($report->verdict === 'healthy', "php-cgi: $report->line");
$report = Probe::check("$folder/php.sock", timeout: '10s', script: "$folder/hello.php", expectStatus: 200, expectBody: 'hello from cgi-fcgi');
check($report->verdict === 'healthy' && $report->fields['http_status'] === 200, "php-cgi by request: $report->line");
$report = Probe::check("$folder/php.sock", timeout: '10s', script: "$folder/hello.php", expectBody: 'something else');
check($report->verdict === 'unexpected', "another body than expected: $report->line");
$status = proc_get_status($server);
proc_terminate($server);
proc_close($server);

$error = thrown(static fn () => Probe::check('nonsense'));
check($error instanceof UsageException && $error->getCode() === -201 && $error->name === 'invalid_address', 'a wrong address is a UsageException');
$error = thrown(static fn () => Probe::check('/x', timeout: 'soon'));
check($error instanceof UsageException && $error->name === 'invalid_option', 'and so is a wrong option');

require __DIR__ . '/client.php';

array_map('unlink', glob("$folder/*") ?: []);
rmdir($folder);
echo "php: $passed passed, $failed failed\n";
exit($failed === 0 ? 0 : 1);
