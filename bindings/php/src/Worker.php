<?php

declare(strict_types=1);

namespace FcgiGuard;

use FcgiGuard\Exception\FcgiGuardException;
use FcgiGuard\Internal\Sapi;
use FcgiGuard\Internal\Scratch;
use FFI;

/**
 * A long-running PHP script that answers FastCGI requests: it boots once and serves many.
 *
 *     $worker = new Worker();
 *     while ($request = $worker->accept()) {
 *         header('Content-Type: text/plain');
 *         echo 'Hello ', $_GET['name'] ?? 'world', "\n";
 *     }
 *
 * Run it with `fcgiguard run --listen ADDRESS -- php worker.php`, or alone with an address of its own. accept() ends the
 * request before it, and returns null when the process should leave: when its manager says so, or after SIGTERM or SIGINT.
 * An exception that leaves the loop, exit() and a fatal error end the process; run() goes on after an exception.
 */
final class Worker
{
    /** "Content-Type: ...\r\n" of php.ini, for an answer that names none. @internal */
    public readonly string $contentType;

    private readonly FFI $ffi;
    private FFI\CData $handle;
    private readonly Scratch $scratch;
    private FFI\CData $next;
    private readonly bool $captures;
    private ?Request $current = null;
    private int $level = 0;
    private bool $draining = false;
    private bool $drop = false;
    private readonly string $order;

    /**
     * @param string|null $address where to listen; null is descriptor 0, as managers, spawners and web servers pass it
     * @param array<string, string|int> $options of the responder: head_timeout, body_timeout, write_timeout, keep_idle,
     *     keep_max, keep_conn, drop_proxy_header, web_server_addrs, params_bytes, params_count, value_len, spill_max
     * @param bool $superglobals whether $_SERVER, $_GET, $_POST, $_FILES, $_COOKIE and $_REQUEST are filled
     * @param bool $forms whether form bodies are read before accept() returns; without, the body is all the program's
     *
     * @throws FcgiGuardException when an option is wrong or the address cannot be listened on
     */
    public function __construct(
        ?string $address = null,
        array $options = [],
        private readonly bool $superglobals = true,
        private readonly bool $forms = true,
    ) {
        $this->ffi = Library::load();
        $this->handle = $this->ffi->fcgiguard_responder_new();
        $this->scratch = Scratch::take($this->ffi);
        $this->next = $this->ffi->new('fcgiguard_request *');
        foreach ($options as $name => $value) {
            $this->check($this->ffi->fcgiguard_responder_set($this->handle, $name, (string) $value, $this->scratch->error));
        }
        // Before the script prints anything: afterwards header() would complain about every request.
        ob_start();
        $this->captures = Sapi::captureHeaders();
        ob_end_clean();
        $charset = (string) ini_get('default_charset');
        $type = (string) ini_get('default_mimetype') ?: 'text/html';
        $text = $charset !== '' && str_starts_with($type, 'text/');
        $this->contentType = "Content-Type: $type" . ($text ? "; charset=$charset" : '') . "\r\n";
        $this->order = strtoupper((string) (ini_get('request_order') ?: ini_get('variables_order')));
        $this->check($this->ffi->fcgiguard_responder_open($this->handle, $address, $this->scratch->error));
        Sapi::leaveOnSignals($this->ffi);
        register_shutdown_function($this->shutdown(...));
    }

    public function __destruct()
    {
        if (isset($this->handle)) {
            $this->ffi->fcgiguard_responder_free($this->handle);
        }
    }

    private function __clone()
    {
    }

    /**
     * Whether header(), header_remove(), headers_list(), setcookie() and session_start() work for requests. Elsewhere (a
     * PHP whose SAPI could not be changed, or output before the worker was made) only Request::header() does;
     * http_response_code() always does.
     */
    public function capturesHeaders(): bool
    {
        return $this->captures;
    }

    /** Ends the request in hand and waits for the next; null when the process should leave. */
    public function accept(): ?Request
    {
        $this->endCurrent();
        for (;;) {
            $this->openBuffer();
            if ($this->check($this->ffi->fcgiguard_responder_accept($this->handle, FFI::addr($this->next), $this->scratch->error)) === 0) {
                $this->closeBuffer();
                return null;
            }
            // The pointer is copied: the next accept writes into $this->next.
            $handle = $this->ffi->cast('fcgiguard_request *', $this->next);
            $request = $this->current = new Request($this->scratch, $handle, $this);
            try {
                if ($this->forms) {
                    $request->parse();
                }
            } catch (FcgiGuardException $error) {
                // The body broke off: nobody waits for an answer.
                $request->fail("fcgiguard: the form was not read: {$error->getMessage()}", 'The form broke off.');
                $this->endCurrent();
                continue;
            }
            if ($this->superglobals) {
                $this->fillSuperglobals($request);
            }
            return $request;
        }
    }

    /**
     * Serves until the process should leave. What the handler returns as a string is printed. A handler that throws is
     * answered with 500, or broken off if its head was sent, and a line in the error log; the next request goes on.
     *
     * @param callable(Request): mixed $handler
     */
    public function run(callable $handler): void
    {
        while ($request = $this->accept()) {
            try {
                $result = $handler($request);
                if (is_string($result)) {
                    echo $result;
                }
                unset($result);
                $request->finish();
            } catch (\Throwable $error) {
                $this->failed($request, 'Uncaught ' . $error);
                unset($error);
            }
            unset($request);
        }
    }

    private function failed(Request $request, string $what): void
    {
        $line = 'PHP Fatal error:  ' . str_replace(["\r\n", "\n"], ' | ', $what);
        error_log($line);
        $shown = filter_var(ini_get('display_errors'), FILTER_VALIDATE_BOOL) ? $what : 'Internal Server Error';
        $request->fail($line, $shown);
    }

    private function endCurrent(): void
    {
        $request = $this->current;
        if ($request === null) {
            return;
        }
        $request->finish();
        $this->current = null;
        if (function_exists('session_status')) {
            // What a web SAPI does at a request's end; the next visitor must not get this one's session.
            if (session_status() === PHP_SESSION_ACTIVE) {
                session_write_close();
            }
            unset($_SESSION);
        }
        $this->dropHeaders();
        error_clear_last();
    }

    /** @internal */
    public function dropHeaders(): void
    {
        if ($this->captures) {
            header_remove();
        }
        // Not headers_sent(): in the CLI it says true as soon as anything went to the process's own stdout.
        @http_response_code(200);
    }

    /** @return list<string> what header() collected @internal */
    public function headFields(): array
    {
        return $this->captures ? headers_list() : [];
    }

    private function openBuffer(): void
    {
        if ($this->level === 0) {
            ob_start($this->take(...), Scratch::PIECE);
            $this->level = ob_get_level();
            http_response_code(200);
        } elseif (ob_get_level() < $this->level) {
            $this->level = 0;
            $this->openBuffer();
        }
    }

    private function closeBuffer(): void
    {
        if ($this->level > 0 && ob_get_level() === $this->level) {
            ob_end_clean();
        }
        $this->level = 0;
    }

    /** The output buffer's handler. */
    private function take(string $bytes, int $phase): string
    {
        if ($this->drop || $bytes === '' && ($phase & PHP_OUTPUT_HANDLER_FLUSH) === 0 || ($phase & PHP_OUTPUT_HANDLER_CLEAN) !== 0) {
            return '';
        }
        if ($this->current === null || $this->current->isFinished()) {
            // Printed between requests, or after finish().
            $bytes === '' || fwrite(STDERR, $bytes);
            return '';
        }
        $this->current->output($bytes);
        if (!$this->draining && ($phase & PHP_OUTPUT_HANDLER_FLUSH) !== 0) {
            $this->current->push();
        }
        return '';
    }

    /**
     * Hands over what was echoed. At a request's end the buffers that the program left open are closed. False if the
     * worker's own is gone.
     *
     * @internal
     */
    public function drainOutput(bool $end = false, bool $drop = false): bool
    {
        if ($this->level === 0) {
            return true;
        }
        while ($end && ob_get_level() > $this->level && ($drop ? ob_end_clean() : ob_end_flush())) {
        }
        if (ob_get_level() < $this->level) {
            return false;
        }
        if (ob_get_level() === $this->level && ob_get_length() > 0) {
            [$this->draining, $this->drop] = [true, $drop];
            $drop ? ob_clean() : ob_flush();
            [$this->draining, $this->drop] = [false, false];
        }
        return true;
    }

    private function fillSuperglobals(Request $request): void
    {
        $now = microtime(true);
        $server = $request->params;
        unset($server['']);
        $server['PHP_SELF'] = ($server['SCRIPT_NAME'] ?? '') . ($server['PATH_INFO'] ?? '');
        $server['REQUEST_TIME_FLOAT'] = $now;
        $server['REQUEST_TIME'] = (int) $now;
        $authorization = $server['HTTP_AUTHORIZATION'] ?? '';
        if (strncasecmp($authorization, 'Basic ', 6) === 0) {
            $pair = explode(':', (string) base64_decode(substr($authorization, 6)), 2);
            if (isset($pair[1])) {
                [$server['PHP_AUTH_USER'], $server['PHP_AUTH_PW']] = $pair;
            }
        } elseif (strncasecmp($authorization, 'Digest ', 7) === 0) {
            $server['PHP_AUTH_DIGEST'] = substr($authorization, 7);
        }
        [$_SERVER, $_GET, $_POST, $_FILES, $_COOKIE] = [$server, $request->get, $request->post, $request->files, $request->cookies];
        $_REQUEST = [];
        foreach (str_split($this->order) as $letter) {
            $_REQUEST = match ($letter) {
                'G' => $_GET,
                'P' => $_POST,
                'C' => $_COOKIE,
                default => [],
            } + $_REQUEST;
        }
        if ($this->captures && function_exists('session_id') && session_status() === PHP_SESSION_NONE) {
            // session_start() asks the cookie only while no id is set, and one is once a request had a session.
            $id = $_COOKIE[session_name()] ?? '';
            session_id(is_string($id) && preg_match('/^[-,a-zA-Z0-9]{1,256}$/D', $id) === 1 ? $id : '');
        }
    }

    /** exit(), an exception that nobody caught, a fatal error: the request in hand gets its answer. */
    private function shutdown(): void
    {
        $request = $this->current;
        if ($request === null || $request->isFinished()) {
            return;
        }
        $last = error_get_last();
        $fatal = E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR;
        if ($last !== null && ($last['type'] & $fatal) !== 0) {
            // PHP logged it already.
            $what = "{$last['message']} in {$last['file']} on line {$last['line']}";
            $shown = filter_var(ini_get('display_errors'), FILTER_VALIDATE_BOOL) ? $what : 'Internal Server Error';
            $request->fail('PHP Fatal error:  ' . str_replace("\n", ' | ', $what), $shown);
        } else {
            $this->endCurrent();
        }
        $this->current = null;
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
