<?php

declare(strict_types=1);

namespace FcgiGuard;

use FcgiGuard\Exception\FcgiGuardException;
use FcgiGuard\Exception\UsageException;
use FcgiGuard\Internal\Ini;
use FcgiGuard\Internal\Multipart;
use FcgiGuard\Internal\Scratch;
use FFI;

/**
 * A request that a Worker took, and its answer. Good until it is finished: by finish(), or by the worker's next accept().
 *
 * @property-read resource $body the request's body as a stream that can be read again (php://temp); empty for a form with files
 */
final class Request
{
    private const PIECE = Scratch::PIECE;

    /** CGI parameters as they came; names and values are bytes. @var array<string, string> */
    public readonly array $params;
    /** Query string. @var array<mixed> */
    public array $get = [];
    /** Form. @var array<mixed> */
    public array $post = [];
    /** Uploaded files, in the shape of $_FILES. @var array<mixed> */
    public array $files = [];
    /** @var array<mixed> */
    public array $cookies = [];

    private readonly FFI $ffi;
    private ?string $input = null;
    /** @var resource|null */
    private $stream = null;
    /** @var list<string> */
    private array $uploads = [];
    /** @var list<array{string, string, bool}> */
    private array $fields = [];
    private ?int $status = null;
    private bool $headSent = false;
    private bool $gone = false;
    private bool $finished = false;

    /** @internal */
    public function __construct(
        private readonly Scratch $scratch,
        private readonly FFI\CData $handle,
        private readonly Worker $worker,
    ) {
        $this->ffi = $scratch->ffi;
        $this->params = $this->readParams();
    }

    private function __clone()
    {
    }

    /** @return array<string, string> */
    private function readParams(): array
    {
        [$ffi, $scratch] = [$this->ffi, $this->scratch];
        [$name, $nameLength, $value, $length] = [$scratch->name, $scratch->nameLength, $scratch->value, $scratch->valueLength];
        $params = [];
        for ($n = 0, $count = $ffi->fcgiguard_request_param_count($this->handle); $n < $count; $n++) {
            $ffi->fcgiguard_request_param_at($this->handle, $n, $name, $nameLength, $value, $length, null);
            $key = $nameLength[0] === 0 ? '' : FFI::string($name[0], $nameLength[0]);
            $params[$key] = $length[0] === 0 ? '' : FFI::string($value[0], $length[0]);
        }
        return $params;
    }

    /** Reads the query, the cookies and, if the body is a form, the form. @internal */
    public function parse(): void
    {
        @parse_str($this->params['QUERY_STRING'] ?? '', $this->get);
        $this->cookies = self::parseCookies($this->params['HTTP_COOKIE'] ?? '');
        if ($this->method() !== 'POST') {
            return;
        }
        $type = $this->params['CONTENT_TYPE'] ?? '';
        $form = strncasecmp($type, 'application/x-www-form-urlencoded', 33) === 0;
        $boundary = $form ? null : Multipart::boundary($type);
        if (!$form && $boundary === null) {
            return;
        }
        $limit = Ini::bytes('post_max_size');
        $length = (int) ($this->params['CONTENT_LENGTH'] ?? 0);
        if ($limit > 0 && $length > $limit) {
            $this->error("a form of $length bytes is over post_max_size=$limit: it is not parsed\n");
        } elseif ($boundary === null) {
            @parse_str($this->input(), $this->post);
        } else {
            $this->parseMultipart($boundary);
        }
    }

    private function parseMultipart(string $boundary): void
    {
        $parser = new Multipart($boundary);
        try {
            while (($piece = $this->read()) !== '') {
                $parser->feed($piece);
            }
        } finally {
            [$this->post, $this->files] = $parser->finish();
            $this->uploads = $parser->paths;
        }
        $this->input = '';
        foreach ($parser->notes as $note) {
            $this->error("$note\n");
        }
    }

    /** @return array<mixed> */
    private static function parseCookies(string $line): array
    {
        $pairs = [];
        foreach ($line === '' ? [] : explode(';', $line) as $pair) {
            [$name, $value] = explode('=', $pair, 2) + ['', ''];
            $name = ltrim($name);
            // The first of a name counts. Names stand as they are; in values only %XX is decoded.
            if ($name !== '' && !isset($pairs[$name])) {
                $pairs[$name] = rawurlencode($name) . '=' . str_replace(['+', '&'], ['%2B', '%26'], $value);
            }
        }
        @parse_str(implode('&', $pairs), $cookies);
        return $cookies;
    }

    public function method(): string
    {
        return $this->params['REQUEST_METHOD'] ?? 'GET';
    }

    /** A CGI parameter; $default if it was not sent. */
    public function param(string $name, ?string $default = null): ?string
    {
        return $this->params[$name] ?? $default;
    }

    /** @return array<string, string> the HTTP fields of the request, as "Accept-Language" */
    public function headers(): array
    {
        $headers = [];
        foreach ($this->params as $name => $value) {
            if (str_starts_with($name, 'HTTP_')) {
                $name = substr($name, 5);
            } elseif (($name !== 'CONTENT_TYPE' && $name !== 'CONTENT_LENGTH') || $value === '') {
                continue;
            }
            $headers[ucwords(strtolower(strtr($name, '_', '-')), '-')] = $value;
        }
        return $headers;
    }

    /**
     * The next piece of the body, straight from the connection; '' at its end. What was read so is not in input() and
     * $body any more.
     *
     * @throws FcgiGuardException when the web server gave the request up, or did not send the rest in time
     */
    public function read(int $most = self::PIECE): string
    {
        $count = $this->check($this->ffi->fcgiguard_request_read($this->live(), $this->scratch->buffer, max(1, min($most, self::PIECE)), $this->scratch->error));
        return $count === 0 ? '' : FFI::string($this->scratch->buffer, $count);
    }

    /** The whole body, what php://input is elsewhere; '' for a form with files, which was taken apart. */
    public function input(): string
    {
        if ($this->input === null) {
            if ($this->stream !== null) {
                $place = (int) ftell($this->stream);
                $input = (string) stream_get_contents($this->stream, null, 0);
                fseek($this->stream, $place);
                return $input;
            }
            $input = '';
            while (($piece = $this->read()) !== '') {
                $input .= $piece;
            }
            $this->input = $input;
        }
        return $this->input;
    }

    public function __get(string $name): mixed
    {
        if ($name !== 'body') {
            throw new UsageException("a request has no \"$name\"", -102, 'invalid_argument');
        }
        if ($this->stream === null) {
            // Over 2 MiB php://temp is a file.
            $stream = fopen('php://temp', 'w+b');
            if ($stream === false) {
                throw new UsageException('php://temp cannot be opened', -102, 'invalid_argument');
            }
            if ($this->input !== null) {
                fwrite($stream, $this->input);
            } else {
                while (($piece = $this->read()) !== '') {
                    fwrite($stream, $piece);
                }
            }
            rewind($stream);
            $this->stream = $stream;
        }
        return $this->stream;
    }

    public function __isset(string $name): bool
    {
        return $name === 'body';
    }

    /** Moves an uploaded file of this request, as move_uploaded_file(), which knows only PHP's own uploads. */
    public function moveUploadedFile(string $from, string $to): bool
    {
        return in_array($from, $this->uploads, true) && is_file($from) && rename($from, $to);
    }

    /**
     * Sets a field of the answer's head. Works whether or not header() is captured (Worker::capturesHeaders()), and wins over it.
     *
     * @throws UsageException when the head was sent, or the field would break it
     */
    public function header(string $name, string $value, bool $replace = true): self
    {
        if ($this->headSent) {
            throw new UsageException("the head was sent already: \"$name\" comes too late", -106, 'wrong_state');
        }
        if (preg_match('/^[!#$%&\'*+.^_`|~0-9A-Za-z-]+$/D', $name) !== 1 || strpbrk($value, "\r\n\0") !== false) {
            throw new UsageException('a field name or value with a byte that no HTTP field may have', -102, 'invalid_argument');
        }
        if ($replace) {
            $this->fields = array_values(array_filter($this->fields, static fn (array $field): bool => strcasecmp($field[0], $name) !== 0));
        }
        $this->fields[] = [$name, $value, $replace];
        return $this;
    }

    /** Sets the HTTP status; it wins over http_response_code(). */
    public function status(int $status): self
    {
        if ($status < 100 || $status > 999) {
            throw new UsageException("$status is no HTTP status", -102, 'invalid_argument');
        }
        $this->status = $status;
        return $this;
    }

    /** Writes to the answer without the output buffer: after what was echoed so far. */
    public function write(string $bytes): void
    {
        $this->worker->drainOutput();
        $this->output($bytes);
    }

    /** Sends what was echoed and written so far to the web server. */
    public function flush(): void
    {
        $this->worker->drainOutput();
        $this->push();
    }

    /** A line for the web server's error log. */
    public function error(string $text): void
    {
        if (!$this->gone && $text !== '') {
            $this->sent($this->ffi->fcgiguard_request_write_error($this->live(), $text, strlen($text), $this->scratch->error));
        }
    }

    /** Sends a file, in the kernel where it can; $length null is to its end. */
    public function sendFile(string $path, int $offset = 0, ?int $length = null): void
    {
        $this->worker->drainOutput();
        $this->head();
        $file = @fopen($path, 'rb');
        if ($file === false || fseek($file, $offset) !== 0) {
            throw new UsageException("$path cannot be read from $offset", -102, 'invalid_argument');
        }
        // PHP does not tell a stream's descriptor, so the pieces go through it.
        while (!$this->gone && $length !== 0 && ($piece = fread($file, max(1, min(self::PIECE, $length ?? self::PIECE)))) !== false && $piece !== '') {
            $length = $length === null ? null : $length - strlen($piece);
            $this->output($piece);
        }
        fclose($file);
    }

    /** Whether the web server gave the request up or went away. */
    public function isAborted(): bool
    {
        return $this->gone || $this->finished || $this->ffi->fcgiguard_request_is_aborted($this->handle, null) === 1;
    }

    public function isFinished(): bool
    {
        return $this->finished;
    }

    /** Whether the head of the answer was sent, so that neither status nor fields can change. */
    public function isHeadSent(): bool
    {
        return $this->headSent;
    }

    /** Ends the request; what the program does from here on, nobody waits for. The worker still counts as busy. */
    public function finish(): void
    {
        if (!$this->finished) {
            if (!$this->worker->drainOutput(true)) {
                $this->error("fcgiguard: the program closed the worker's output buffer; what it printed since is in the worker's own stdout\n");
            }
            $this->head();
            $this->end();
        }
    }

    /** Ends a request that failed: 500 if the head can still say so, and a line for the error log. @internal */
    public function fail(string $line, string $shown): void
    {
        if ($this->finished) {
            return;
        }
        $this->worker->drainOutput(true, !$this->headSent);
        $this->error("$line\n");
        if (!$this->headSent) {
            $this->fields = [['Content-Type', 'text/plain; charset=UTF-8', true]];
            $this->worker->dropHeaders();
            $this->status = 500;
            $this->output("$shown\n");
        }
        $this->end();
    }

    /** @internal */
    public function output(string $bytes): void
    {
        if ($bytes === '' || $this->gone) {
            return;
        }
        $this->head();
        // As under PHP's own servers; RFC 3875, 4.3.3, and HAProxy answers 502 to a HEAD with a body.
        if ($this->method() !== 'HEAD') {
            $this->sent($this->ffi->fcgiguard_request_write($this->live(), $bytes, strlen($bytes), $this->scratch->error));
        }
    }

    /** @internal */
    public function push(): void
    {
        if (!$this->gone && !$this->finished) {
            $this->head();
            $this->sent($this->ffi->fcgiguard_request_flush($this->handle, $this->scratch->error));
        }
    }

    private function head(): void
    {
        if ($this->headSent) {
            return;
        }
        $this->headSent = true;
        $head = $this->worker->headFields();
        $own = [];
        foreach ($this->fields as [$name, , $replace]) {
            $own += $replace ? [strtolower($name) => true] : [];
        }
        $lines = [];
        foreach ($head as $line) {
            $name = strtolower((string) strstr($line, ':', true));
            if (!isset($own[$name]) && $name !== 'status') {
                $lines[] = [$name, $line];
            }
        }
        foreach ($this->fields as [$name, $value]) {
            $lines[] = [strtolower($name), "$name: $value"];
        }
        $status = $this->status ?? (http_response_code() ?: 200);
        $text = $status === 200 ? '' : "Status: $status\r\n";
        if (!in_array('content-type', array_column($lines, 0), true)) {
            $text .= $this->worker->contentType;
        }
        foreach ($lines as [, $line]) {
            $text .= "$line\r\n";
        }
        $text .= "\r\n";
        $this->sent($this->ffi->fcgiguard_request_write($this->live(), $text, strlen($text), $this->scratch->error));
    }

    private function end(): void
    {
        if ($this->finished) {
            return;
        }
        $this->finished = true;
        $result = $this->ffi->fcgiguard_request_finish($this->handle, $this->scratch->error);
        foreach ($this->uploads as $path) {
            if (is_file($path)) {
                @unlink($path);
            }
        }
        // Whoever else has the stream keeps it: PSR-7 objects close theirs themselves.
        $this->stream = null;
        $this->sent($result);
    }

    private function live(): FFI\CData
    {
        return $this->finished ? throw new UsageException('the request is finished', -106, 'wrong_state') : $this->handle;
    }

    /** Whether a write went through. A web server that went away is no error of the program: what it prints is dropped. */
    private function sent(int $result): bool
    {
        if ($result < 0) {
            $this->gone = true;
        }
        return $result >= 0;
    }

    private function check(int $result): int
    {
        if ($result < 0) {
            $name = $this->ffi->fcgiguard_code_name($result) ?? 'unknown';
            throw FcgiGuardException::of($result, $name, $this->ffi->fcgiguard_error_message($this->scratch->error));
        }
        return $result;
    }
}
