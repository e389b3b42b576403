<?php

declare(strict_types=1);

namespace FcgiGuard\Tests;

use FcgiGuard\Probe;
use PHPUnit\Framework\TestCase;

/** A test with a folder of its own and processes that do not outlive it. */
abstract class Processes extends TestCase
{
    protected string $folder = '';
    /** @var array<int, resource> */
    private array $running = [];

    protected function setUp(): void
    {
        $this->folder = sys_get_temp_dir() . '/fcgiguard-php-' . bin2hex(random_bytes(6));
        mkdir($this->folder, 0700);
    }

    protected function tearDown(): void
    {
        foreach (array_keys($this->running) as $key) {
            $this->stop($key);
        }
        array_map('unlink', glob("$this->folder/*") ?: []);
        @rmdir($this->folder);
    }

    protected static function root(): string
    {
        return dirname(__DIR__, 3);
    }

    /**
     * @param list<string> $command
     * @param array<string, string> $environment
     */
    protected function start(array $command, array $environment = [], string $log = 'log'): int
    {
        $out = ['file', "$this->folder/$log", 'a'];
        $process = proc_open($command, [['file', '/dev/null', 'r'], $out, $out], $pipes, null, $environment + getenv());
        self::assertIsResource($process);
        $this->running[] = $process;
        return (int) array_key_last($this->running);
    }

    /** TERM, and KILL after 20 s. @return int the exit code; 128 and the signal's number if one ended it */
    protected function stop(int $key, int $signal = 15): int
    {
        if (!isset($this->running[$key])) {
            return -1;
        }
        proc_terminate($this->running[$key], $signal);
        return $this->ended($key);
    }

    protected function ended(int $key): int
    {
        $status = proc_get_status($this->running[$key]);
        for ($end = microtime(true) + 20; $status['running']; $status = proc_get_status($this->running[$key])) {
            if (microtime(true) > $end) {
                proc_terminate($this->running[$key], 9);
            }
            usleep(5_000);
        }
        proc_close($this->running[$key]);
        unset($this->running[$key]);
        return $status['signaled'] ? 128 + $status['termsig'] : $status['exitcode'];
    }

    protected function pid(int $key): int
    {
        return proc_get_status($this->running[$key])['pid'];
    }

    protected function log(string $log = 'log'): string
    {
        return (string) @file_get_contents("$this->folder/$log");
    }

    /** Waits until it is true, at most 20 s. */
    protected static function eventually(callable $true): bool
    {
        for ($end = microtime(true) + 20; microtime(true) < $end; usleep(10_000)) {
            if ($true()) {
                return true;
            }
        }
        return false;
    }

    /** Waits until a server answers there. */
    protected function serves(string $address): void
    {
        self::assertTrue(self::eventually(static fn () => Probe::check($address, timeout: '5s')->isAlive()), "nothing serves: {$this->log()}");
    }

    /**
     * Starts a worker script of tests/apps and waits until it listens.
     *
     * @param list<string> $php options of PHP
     * @return array{int, string} its key and its address
     */
    protected function worker(string $script, array $php = []): array
    {
        $address = "$this->folder/worker.sock";
        $key = $this->start([PHP_BINARY, ...$php, __DIR__ . "/apps/$script", $address]);
        self::assertTrue(self::eventually(static fn () => ($there = @stream_socket_client("unix://$address")) !== false && fclose($there)), "the worker does not listen: {$this->log()}");
        return [$key, $address];
    }
}
