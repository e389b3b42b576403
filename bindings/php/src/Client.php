<?php

declare(strict_types=1);

namespace FcgiGuard;

use FcgiGuard\Exception\FcgiGuardException;
use FcgiGuard\Exception\UsageException;
use FcgiGuard\Internal\Scratch;
use FFI;

/**
 * Sends requests to a FastCGI server, as a web server does.
 *
 *     $client = new Client('unix:/run/php/php-fpm.sock', timeout: '10s');
 *     $response = $client->request('/srv/www/index.php', query: 'page=2');
 *     foreach ($response->body() as $piece) {
 *         echo $piece;
 *     }
 *
 * One request at a time: a new one gives up an answer that was not read to its end. After a failed request the next one
 * connects anew. Signal handlers (pcntl_async_signals) run while a call waits; one that throws ends the wait.
 */
final class Client
{
    /** Bytes given to the library at once. */
    private const PIECE = 65536;
    private const INTERRUPTED = -404;

    private readonly FFI $ffi;
    private FFI\CData $handle;
    private readonly Scratch $scratch;
    private bool $connected = false;
    private int $turn = 0;
    private bool $open = false;

    /**
     * @param string $address unix:/path, /path, host:port, :port or [v6]:port; the first request connects
     * @param string $timeout of a connect, and of a request until its answer is read to the end: 250ms, 5s, 2m; 0 is none
     * @param bool $keepConn asks the server to keep the connection for the next request; it holds one of its workers
     * @param string $idleTimeout longest wait without a byte; 0 is none
     * @param string $hold how much of an answer may come while the body is still sent; more is the error limit_exceeded
     *
     * @throws UsageException when the address or an option is wrong
     */
    public function __construct(
        public readonly string $address,
        string $timeout = '60s',
        bool $keepConn = false,
        string $idleTimeout = '0',
        string $hold = '64M',
    ) {
        $this->ffi = Library::load();
        $this->handle = $this->ffi->fcgiguard_client_new();
        $this->scratch = Scratch::take($this->ffi);
        $options = ['timeout' => $timeout, 'keep_conn' => $keepConn ? '1' : '0', 'idle_timeout' => $idleTimeout, 'hold' => $hold, 'interruptible' => '1'];
        foreach ($options as $name => $value) {
            $this->call('set', $name, $value);
        }
        Library::call(fn ($error) => $this->ffi->fcgiguard_address_check($this->address, $error));
    }

    public function __destruct()
    {
        if (isset($this->handle)) {
            $this->ffi->fcgiguard_client_free($this->handle);
            if (isset($this->scratch)) {
                $this->scratch->giveBack();
            }
        }
    }

    private function __clone()
    {
    }

    /**
     * Sends a request and its body, and waits for the head of the answer. The params that a web server sets are set; those
     * given replace them.
     *
     * @param string|null $script file that php-fpm is to run (SCRIPT_FILENAME); SCRIPT_NAME is its last part
     * @param array<string, string|int> $params CGI parameters
     * @param string|resource|iterable<string>|null $body a stream is sent from where it stands; for anything but a string or a
     *     file say CONTENT_LENGTH in $params, or it is read into memory first
     *
     * @throws Exception\FcgiGuardException by its class: usage, connection, protocol, system (a timeout is one of these)
     */
    public function request(
        ?string $script = null,
        array $params = [],
        mixed $body = null,
        ?string $method = null,
        string $query = '',
        string $contentType = 'application/octet-stream',
    ): Response {
        return $this->receive($this->sendOnly($script, $params, $body, $method, $query, $contentType));
    }

    /**
     * Sends a request and does not wait.
     *
     * @param array<string, string|int> $params
     * @param string|resource|iterable<string>|null $body
     * @return int for receive()
     *
     * @internal
     */
    public function sendOnly(?string $script, array $params, mixed $body, ?string $method, string $query, string $contentType): int
    {
        if (is_iterable($body) && !isset($params['CONTENT_LENGTH'])) {
            $whole = '';
            foreach ($body as $piece) {
                $whole .= $piece;
            }
            $body = $whole;
        }
        if (is_resource($body) && !isset($params['CONTENT_LENGTH'])) {
            $stat = fstat($body);
            if ($stat !== false && ($stat['mode'] & 0170000) === 0100000) {
                $params['CONTENT_LENGTH'] = max(0, $stat['size'] - (int) ftell($body));
            } else {
                $body = (string) stream_get_contents($body);
            }
        }
        if ($body !== null && !is_string($body) && !is_resource($body) && !is_iterable($body)) {
            throw new UsageException('body is ' . get_debug_type($body) . ', not a string, a stream or pieces', -102, 'invalid_argument');
        }
        if (isset($params[''])) {
            throw new UsageException('the name of a param is empty', -102, 'invalid_argument');
        }
        $this->begin($params + $this->usual($script, $method ?? ($body === null ? 'GET' : 'POST'), $query, $body, $contentType));
        $this->send($body);
        $this->call('end');
        return $this->turn;
    }

    /**
     * Waits for the head of the answer to what sendOnly() sent.
     *
     * @internal
     */
    public function receive(int $turn): Response
    {
        $this->mustBe($turn);
        return new Response($this, $turn, $this->call('head'), $this->fields());
    }

    private function mustBe(int $turn): void
    {
        if ($turn !== $this->turn) {
            throw new UsageException('this answer was given up: its client has sent another request', -106, 'wrong_state');
        }
    }

    /**
     * @param string|resource|iterable<string>|null $body
     * @return array<string, string|int>
     */
    private function usual(?string $script, string $method, string $query, mixed $body, string $contentType): array
    {
        $name = '/' . ($script === null ? '' : basename($script));
        $usual = [
            'GATEWAY_INTERFACE' => 'CGI/1.1',
            'SERVER_PROTOCOL' => 'HTTP/1.1',
            'SERVER_SOFTWARE' => 'fcgiguard',
            'SERVER_NAME' => 'localhost',
            'SERVER_ADDR' => '127.0.0.1',
            'SERVER_PORT' => '80',
            'REMOTE_ADDR' => '127.0.0.1',
            'REMOTE_PORT' => '0',
            'HTTP_HOST' => 'localhost',
            'REQUEST_METHOD' => $method,
            'QUERY_STRING' => $query,
            'REQUEST_URI' => $query === '' ? $name : "$name?$query",
            'SCRIPT_NAME' => $name,
            'DOCUMENT_URI' => $name,
            'CONTENT_LENGTH' => is_string($body) ? strlen($body) : '',
        ];
        if ($body !== null) {
            $usual['CONTENT_TYPE'] = $contentType;
        }
        if ($script !== null) {
            $usual['SCRIPT_FILENAME'] = $script;
        }
        return $usual;
    }

    /** @param array<string, string|int> $params */
    private function begin(array $params): void
    {
        $this->turn++;
        if ($this->open) {
            $this->call('close');
            $this->open = false;
        }
        if (!$this->connected) {
            $this->call('connect', $this->address);
            $this->connected = true;
        }
        foreach ($params as $name => $value) {
            [$name, $value] = [(string) $name, (string) $value];
            $this->call('param', $name, strlen($name), $value, strlen($value));
        }
        $this->call('begin');
        $this->open = true;
    }

    /** @param string|resource|iterable<string>|null $body */
    private function send(mixed $body): void
    {
        if (is_string($body)) {
            $this->write($body);
        } elseif (is_iterable($body)) {
            foreach ($body as $piece) {
                $this->write($piece);
            }
        } elseif ($body !== null) {
            while (($piece = fread($body, self::PIECE)) !== false && $piece !== '') {
                $this->write($piece);
            }
        }
    }

    private function write(string $bytes): void
    {
        for ($at = 0; $at < strlen($bytes); $at += $taken) {
            $piece = substr($bytes, $at, self::PIECE);
            // Fewer than given, and then limit_exceeded, come only while `hold` bytes of the answer wait.
            $taken = $this->call('write', $piece, strlen($piece));
        }
    }

    /** Calls fcgiguard_client_NAME with the handle, the arguments and the client's own error object. */
    private function call(string $name, mixed ...$arguments): int
    {
        $function = "fcgiguard_client_$name";
        $arguments[] = $this->scratch->error;
        do {
            $result = $this->ffi->$function($this->handle, ...$arguments);
            // PHP runs signal handlers between its operations: here. The same call then goes on.
        } while ($result === self::INTERRUPTED);
        if ($result < 0) {
            $code = $this->ffi->fcgiguard_code_name($result) ?? 'unknown';
            throw FcgiGuardException::of($result, $code, $this->ffi->fcgiguard_error_message($this->scratch->error));
        }
        return $result;
    }

    /** @return list<array{string, string}> */
    private function fields(): array
    {
        $s = $this->scratch;
        $fields = [];
        while ($this->call('header_at', count($fields), $s->name, $s->nameLength, $s->value, $s->valueLength) === 1) {
            $fields[] = [self::copy($s->name[0], $s->nameLength[0]), self::copy($s->value[0], $s->valueLength[0])];
        }
        return $fields;
    }

    private static function copy(?FFI\CData $bytes, int $length): string
    {
        return $length === 0 || $bytes === null ? '' : FFI::string($bytes, $length);
    }

    /**
     * The next piece of an answer: 1 and a piece of the body, 2 and one of the error stream, 0 at the end.
     *
     * @internal Response reads with it
     * @return array{int, string}
     */
    public function readFor(int $turn): array
    {
        $this->mustBe($turn);
        $s = $this->scratch;
        $kind = $this->call('read', $s->value, $s->valueLength);
        if ($kind === 0) {
            $this->open = false;
        }
        return [$kind, self::copy($s->value[0], $s->valueLength[0])];
    }

    /**
     * @internal
     * @return array{int, int} of the application and of the protocol; -1 before the end
     */
    public function statusFor(int $turn): array
    {
        if ($turn !== $this->turn) {
            return [-1, -1];
        }
        return [$this->ffi->fcgiguard_client_app_status($this->handle), $this->ffi->fcgiguard_client_protocol_status($this->handle)];
    }

    /** @internal */
    public function abortFor(int $turn): void
    {
        if ($turn === $this->turn && $this->open) {
            $this->open = false;
            try {
                $this->call('abort');
            } finally {
                // An application that does not look at the wish is stopped by its connection's end.
                $this->call('close');
            }
        }
    }

    /** Whether a connection is open: after a whole answer, whether it was kept. */
    public function isConnected(): bool
    {
        return $this->ffi->fcgiguard_client_is_connected($this->handle) === 1;
    }

    /** Closes the connection; an answer that was not read to its end is lost. */
    public function close(): void
    {
        $this->open = false;
        $this->turn++;
        $this->call('close');
    }
}
