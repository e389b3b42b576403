<?php

declare(strict_types=1);

namespace FcgiGuard\Tests;

use FcgiGuard\Client;

/** Loading says what is missing; and how it is loaded in a real php-fpm. */
final class LibraryTest extends Processes
{
    private const SHOW = 'require $argv[1]; try { FcgiGuard\Library::load(); echo "loaded"; } catch (FcgiGuard\Exception\LibraryException $e) { echo $e->name, ": ", $e->getMessage(); }';

    /** @param list<string> $options */
    private function load(array $options, ?string $library = null, ?string $package = null): string
    {
        $command = [PHP_BINARY, ...$options, '-r', self::SHOW, ($package ?? dirname(__DIR__)) . '/autoload.php'];
        $process = proc_open($command, [1 => ['pipe', 'w'], 2 => ['file', "$this->folder/log", 'a']], $pipes, null, ['FCGIGUARD_LIB' => $library ?? ''] + getenv());
        self::assertIsResource($process);
        $text = (string) stream_get_contents($pipes[1]);
        proc_close($process);
        return $text;
    }

    /** A shared library from C source. */
    private function library(string $source): string
    {
        file_put_contents("$this->folder/lib.c", $source);
        exec('cc -shared -fPIC -o ' . escapeshellarg("$this->folder/lib.so") . ' ' . escapeshellarg("$this->folder/lib.c"), $output, $code);
        self::assertSame(0, $code, 'a C compiler is needed');
        return "$this->folder/lib.so";
    }

    public function testWithoutTheExtensionItSaysSo(): void
    {
        self::assertMatchesRegularExpression('/^unsupported: .*"ffi" is not loaded: install it/', $this->load(['-n']));
    }

    public function testSwitchedOffInPhpIni(): void
    {
        self::assertMatchesRegularExpression('/switched off in php.ini: set ffi.enable=true/', $this->load(['-d', 'ffi.enable=0']));
        self::assertSame('loaded', $this->load(['-d', 'ffi.enable=preload']), 'the command line may use FFI then');
    }

    public function testALibraryThatIsNotThereOrAnother(): void
    {
        self::assertMatchesRegularExpression('/cannot be loaded from \/none\.so: .*correct FCGIGUARD_LIB/', $this->load(['-d', 'ffi.enable=1'], '/none.so'));
        $other = $this->library('int something_else(void) { return 1; }');
        self::assertStringContainsString('that file is no libfcgiguard', $this->load(['-d', 'ffi.enable=1'], $other));
        $old = $this->library('const char *fcgiguard_version(void) { return "9.8.7"; }');
        self::assertStringContainsString('is version 9.8.7, this package needs 0.1.x', $this->load(['-d', 'ffi.enable=1'], $old));
        $mixed = $this->library('const char *fcgiguard_version(void) { return "0.1.99"; }');
        self::assertStringContainsString('are not of one build', $this->load(['-d', 'ffi.enable=1'], $mixed));
    }

    public function testAPackageOutsideTheTreeFindsTheHeaderOfItsLibrary(): void
    {
        $package = "$this->folder/a/b/c/package";
        mkdir($package, 0700, true);
        mkdir("$this->folder/prefix/lib", 0700, true);
        mkdir("$this->folder/prefix/include");
        try {
            exec('cp -r ' . escapeshellarg(dirname(__DIR__) . '/src') . ' ' . escapeshellarg(dirname(__DIR__) . '/autoload.php') . ' ' . escapeshellarg($package));
            $told = $this->load(['-d', 'ffi.enable=1'], '/none.so', $package);
            self::assertStringContainsString('cannot be loaded from /none.so', $told, 'the library comes before its header');
            copy(self::root() . '/target/release/libfcgiguard.so', $library = "$this->folder/prefix/lib/libfcgiguard.so.0");
            if (!is_file('/usr/include/fcgiguard_php.h') && !is_file('/usr/local/include/fcgiguard_php.h')) {
                self::assertStringContainsString("fcgiguard_php.h was not found beside the package or in $this->folder/prefix/include", $this->load(['-d', 'ffi.enable=1'], $library, $package));
            }
            copy(self::root() . '/include/fcgiguard_php.h', "$this->folder/prefix/include/fcgiguard_php.h");
            self::assertSame('loaded', $this->load(['-d', 'ffi.enable=1'], $library, $package));
        } finally {
            exec('rm -rf ' . escapeshellarg("$this->folder/a") . ' ' . escapeshellarg("$this->folder/prefix"));
        }
    }

    /** @return array<string, array{list<string>, list<mixed>|string}> */
    public function fpms(): array
    {
        $preload = dirname(__DIR__) . '/preload.php';
        $good = static fn (string $enable): array => ['fpm-fcgi', $enable, 'healthy', 200, ['a' => 'b']];
        return [
            'ffi.enable=true' => [['-d', 'ffi.enable=true'], $good('1')],
            'classes preloaded' => [['-d', 'ffi.enable=preload', '-d', "opcache.preload=$preload", '-d', 'opcache.preload_user=root'], $good('preload')],
            'library preloaded too' => [['-d', 'ffi.enable=preload', '-d', 'ffi.preload=FOLDER/ffi.h', '-d', "opcache.preload=$preload", '-d', 'opcache.preload_user=root'], $good('preload')],
            'as Debian has it' => [['-d', 'ffi.enable=preload'], "is not preloaded: set opcache.preload=$preload"],
            'off' => [['-d', 'ffi.enable=0'], 'FFI is switched off'],
        ];
    }

    /**
     * @dataProvider fpms
     * @param list<string> $options
     * @param list<mixed>|string $expected
     */
    public function testProbeAndClientInsidePhpFpm(array $options, array|string $expected): void
    {
        $fpm = max(glob('/usr/sbin/php-fpm*') ?: ['']);
        self::assertNotSame('', $fpm, 'php-fpm is installed');
        $user = posix_geteuid() === 0 ? "user = root\ngroup = root\n" : '';
        file_put_contents("$this->folder/fpm.conf", "[global]\nerror_log = $this->folder/log\ndaemonize = no\n[www]\n{$user}listen = $this->folder/fpm.sock\npm = static\npm.max_children = 2\n");
        exec(PHP_BINARY . ' ' . escapeshellarg(dirname(__DIR__) . '/bin/fcgiguard-ffi-header') . ' > ' . escapeshellarg("$this->folder/ffi.h"), $output, $code);
        self::assertSame(0, $code);
        $options = str_replace('FOLDER', $this->folder, $options);
        $this->start([$fpm, '-F', '-R', ...$options, '-y', "$this->folder/fpm.conf"]);
        $this->serves("$this->folder/fpm.sock");
        [, $worker] = $this->worker('loop.php');
        $client = new Client("$this->folder/fpm.sock", '20s');
        for ($n = 0; $n < 10; $n++) {
            $text = $client->request(__DIR__ . '/apps/fpm.php', query: 'address=' . urlencode($worker))->text();
            $found = json_decode($text, true);
            if (is_array($expected)) {
                self::assertSame($expected, $found, $text . $this->log());
            } else {
                self::assertStringContainsString($expected, $found[3] ?? $text);
            }
        }
    }
}
