<?php

declare(strict_types=1);

namespace FcgiGuard\Adapter;

use FcgiGuard\Exception\ConnectionException;
use FcgiGuard\Exception\FcgiGuardException;
use FcgiGuard\Exception\UsageException;

/**
 * The calls of hollodotme/fast-cgi-client over this package's client, for programs that were written for those.
 *
 *     $client = new Client();
 *     $response = $client->sendRequest(new UnixDomainSocket('/run/php/php-fpm.sock'), new Request('POST', '/srv/www/x.php', 'a=b'));
 *     echo $response->getBody();
 *
 * Takes that package's own connection and request objects too: of a connection getSocketAddress() and getReadWriteTimeout() are
 * called, of a request getParams(), getContent() and, where they are, its callbacks. Exceptions are this package's.
 *
 * Left out: hasResponse(), readReadyResponses() and their like, which ask whether an answer has come without waiting for
 * it; and pass-through callbacks (read the pieces of FcgiGuard\Response::body() instead).
 */
final class Client
{
    /** Connections kept for one address. */
    private const KEPT = 8;

    /** @var array<string, list<\FcgiGuard\Client>> */
    private array $idle = [];
    /** @var array<int, array{\FcgiGuard\Client, int, string, object, float}> */
    private array $open = [];
    private int $last = 0;

    public function sendRequest(object $connection, object $request): Response
    {
        return $this->readResponse($this->sendAsyncRequest($connection, $request));
    }

    /** @param int $tries how often to connect; what was sent is not sent again */
    public function tryRequest(object $connection, object $request, int $tries = 5): Response
    {
        return $this->readResponse($this->tryAsyncRequest($connection, $request, $tries));
    }

    public function tryAsyncRequest(object $connection, object $request, int $tries = 5): int
    {
        if ($tries < 1) {
            throw new UsageException("$tries tries are none", -102, 'invalid_argument');
        }
        for (;;) {
            try {
                return $this->sendAsyncRequest($connection, $request);
            } catch (ConnectionException $error) {
                if (--$tries === 0) {
                    throw $error;
                }
            }
        }
    }

    /** Sends and does not wait. @return int names the request for readResponse() */
    public function sendAsyncRequest(object $connection, object $request): int
    {
        [$address, $timeout] = [self::text($connection, 'getSocketAddress'), (int) self::text($connection, 'getReadWriteTimeout')];
        $address = str_starts_with($address, 'unix://') ? 'unix:' . substr($address, 7) : (string) preg_replace('/^tcp:\/\//', '', $address);
        $key = "$address $timeout";
        $this->idle[$key] ??= [];
        $client = array_pop($this->idle[$key]) ?? new \FcgiGuard\Client($address, "{$timeout}ms", keepConn: true);
        $params = method_exists($request, 'getParams') ? $request->getParams() : null;
        if (!is_array($params)) {
            throw new UsageException('a request must have getParams()', -102, 'invalid_argument');
        }
        $content = method_exists($request, 'getContent') ? $request->getContent() : null;
        $content = is_object($content) ? self::text($content, 'getContent') : (string) $content;
        $params = array_map(static fn (mixed $value): string => is_scalar($value) ? (string) $value : '', $params);
        $turn = $client->sendOnly(null, $params, $content, null, '', $params['CONTENT_TYPE'] ?? '');
        $this->open[++$this->last] = [$client, $turn, $key, $request, microtime(true)];
        return $this->last;
    }

    /** Waits for an answer, at most as long as its connection's read timeout from its sending on. */
    public function readResponse(int $socketId): Response
    {
        [$client, $turn, $key, , $begin] = $this->open[$socketId]
            ?? throw new UsageException("no request $socketId waits for its answer", -106, 'wrong_state');
        unset($this->open[$socketId]);
        $response = $client->receive($turn);
        $body = $response->text();
        if ($client->isConnected() && count($this->idle[$key] ?? []) < self::KEPT) {
            $this->idle[$key][] = $client;
        }
        return new Response($response->fields, $body, $response->errors(), microtime(true) - $begin);
    }

    /** In the order of the arguments. @return \Generator<int, Response> */
    public function readResponses(int ...$socketIds): \Generator
    {
        foreach ($socketIds as $socketId) {
            yield $this->readResponse($socketId);
        }
    }

    /** Waits for an answer and calls the request's callbacks. */
    public function waitForResponse(int $socketId): void
    {
        $request = $this->open[$socketId][3] ?? null;
        try {
            $answer = $this->readResponse($socketId);
            $callbacks = $request !== null && method_exists($request, 'getResponseCallbacks') ? $request->getResponseCallbacks() : [];
        } catch (FcgiGuardException $answer) {
            $callbacks = $request !== null && method_exists($request, 'getFailureCallbacks') ? $request->getFailureCallbacks() : [];
            if ($callbacks === []) {
                throw $answer;
            }
        }
        foreach (is_iterable($callbacks) ? $callbacks : [] as $callback) {
            is_callable($callback) && $callback($answer);
        }
    }

    public function handleResponse(int $socketId): void
    {
        $this->waitForResponse($socketId);
    }

    public function waitForResponses(): void
    {
        foreach (array_keys($this->open) as $socketId) {
            $this->waitForResponse($socketId);
        }
    }

    public function hasUnhandledResponses(): bool
    {
        return $this->open !== [];
    }

    private static function text(object $object, string $method): string
    {
        $value = is_callable([$object, $method]) ? $object->$method() : null;
        return is_scalar($value) ? (string) $value : throw new UsageException(get_debug_type($object) . " has no $method()", -102, 'invalid_argument');
    }
}
