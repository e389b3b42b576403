<?php

declare(strict_types=1);

namespace FcgiGuard;

use FcgiGuard\Exception\ConnectionException;
use FcgiGuard\Exception\FcgiGuardException;
use FcgiGuard\Exception\PoolException;
use FcgiGuard\Exception\UsageException;

/**
 * A running pool, steered over its control socket (`fcgiguard run --control ADDRESS`).
 *
 *     $pool = new Pool('/run/app.ctl');
 *     echo $pool->status()['state'], "\n";
 *     $pool->reload();            // returns when the new workers serve, throws when the reload was given up
 */
final class Pool
{
    private readonly Client $client;

    /**
     * @param string $control the address given to `fcgiguard run --control`
     * @param string $timeout longest wait for an answer; a change that was asked for goes on without its asker
     */
    public function __construct(string $control, string $timeout = '60s')
    {
        $this->client = new Client($control, $timeout);
    }

    /**
     * State, counters and workers of the pool, as `fcgiguard status --json` prints them.
     *
     * @return array<string, mixed>
     */
    public function status(): array
    {
        return json_decode($this->ask('GET', 'status.json'), true, 64, JSON_THROW_ON_ERROR);
    }

    /** The same for people. */
    public function statusText(): string
    {
        return $this->ask('GET', 'status.txt');
    }

    /** Replaces the workers. @return string what came of it; without $wait "accepted" */
    public function reload(bool $wait = true): string
    {
        return $this->ask('POST', 'reload', $wait ? ['wait' => 1] : []);
    }

    /** Changes the number of workers. @return string what came of it; without $wait "accepted" */
    public function scale(int $workers, bool $wait = true): string
    {
        return $this->ask('POST', 'scale', ['workers' => $workers] + ($wait ? ['wait' => 1] : []));
    }

    /** Ends the pool after the requests in flight. @return string what came of it; without $wait "accepted" */
    public function stop(bool $wait = true): string
    {
        return $this->ask('POST', 'stop', $wait ? ['wait' => 1] : []);
    }

    /** @param array<string, int> $query */
    private function ask(string $method, string $what, array $query = []): string
    {
        try {
            $response = $this->client->request(
                params: ['SCRIPT_NAME' => "/$what", 'DOCUMENT_URI' => "/$what"],
                method: $method,
                query: http_build_query($query),
            );
            $text = $response->text();
        } catch (ConnectionException $error) {
            if (!in_array($error->name, ['no_socket', 'refused'], true)) {
                throw $error;
            }
            $message = "no manager answers at {$this->client->address}; start it with --control";
            throw new PoolException($message, -607, 'no_control');
        }
        return $response->status < 300 ? $text : throw self::refused($what, $response->status, rtrim($text));
    }

    private static function refused(string $what, int $status, string $text): FcgiGuardException
    {
        return match (true) {
            $status === 400 => new UsageException($text, -102, 'invalid_argument'),
            $status === 403 => new PoolException($text, -608, 'control_denied'),
            $status === 409 && $what === 'reload' => new PoolException($text, -602, 'reload_failed'),
            default => new PoolException($text, -601, 'start_failed'),
        };
    }
}
