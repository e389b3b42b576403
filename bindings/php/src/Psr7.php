<?php

declare(strict_types=1);

namespace FcgiGuard;

use FcgiGuard\Exception\UsageException;
use Psr\Http\Message\ResponseInterface;
use Psr\Http\Message\ServerRequestFactoryInterface;
use Psr\Http\Message\ServerRequestInterface;
use Psr\Http\Message\StreamFactoryInterface;
use Psr\Http\Message\UploadedFileFactoryInterface;
use Psr\Http\Message\UploadedFileInterface;
use Psr\Http\Message\UriFactoryInterface;
use Psr\Http\Message\UriInterface;

/**
 * Serves an application that speaks PSR-7 (needs a package with PSR-17 factories: nyholm/psr7 or guzzlehttp/psr7).
 *
 *     Psr7::discover()->run(new Worker(superglobals: false), fn (ServerRequestInterface $request): ResponseInterface => $app->handle($request));
 *
 * Do not echo in such an application: what is printed comes before the response's body.
 */
final class Psr7
{
    private const PIECE = 65536;

    public function __construct(
        private readonly ServerRequestFactoryInterface $requests,
        private readonly UriFactoryInterface $uris,
        private readonly StreamFactoryInterface $streams,
        private readonly UploadedFileFactoryInterface $files,
    ) {
    }

    /** With the factories of nyholm/psr7 or guzzlehttp/psr7, whichever is installed. */
    public static function discover(): self
    {
        foreach (['Nyholm\Psr7\Factory\Psr17Factory', 'GuzzleHttp\Psr7\HttpFactory'] as $class) {
            if (class_exists($class)) {
                $factory = new $class();
                if (
                    $factory instanceof ServerRequestFactoryInterface && $factory instanceof UriFactoryInterface
                    && $factory instanceof StreamFactoryInterface && $factory instanceof UploadedFileFactoryInterface
                ) {
                    return new self($factory, $factory, $factory, $factory);
                }
            }
        }
        throw new UsageException('no PSR-17 factory is installed: composer require nyholm/psr7', -102, 'invalid_argument');
    }

    /**
     * Serves until the process should leave; a handler that throws is answered with 500.
     *
     * @param callable(ServerRequestInterface): ResponseInterface $handler for a PSR-15 handler: $app->handle(...)
     */
    public function run(Worker $worker, callable $handler): void
    {
        $worker->run(function (Request $request) use ($handler): void {
            $this->send($request, $handler($this->request($request)));
        });
    }

    public function request(Request $request): ServerRequestInterface
    {
        $params = $request->params;
        $psr = $this->requests->createServerRequest($request->method(), $this->uri($params), $params);
        foreach ($request->headers() as $name => $value) {
            $psr = $psr->withHeader($name, $value);
        }
        // HTTP/1.1 without its name, as PSR-7 has it.
        $version = preg_match('/^HTTP\/(\d(?:\.\d)?)$/', $params['SERVER_PROTOCOL'] ?? '', $match) === 1 ? $match[1] : '1.1';
        return $psr
            ->withProtocolVersion($version)
            ->withQueryParams($request->get)
            ->withCookieParams($request->cookies)
            ->withParsedBody($request->post === [] ? null : $request->post)
            ->withUploadedFiles($this->uploads($request->files))
            ->withBody($this->streams->createStreamFromResource($request->body))
            ->withAttribute(Request::class, $request);
    }

    /** Sends the response as the answer: its body in pieces, so it may be longer than memory. */
    public function send(Request $request, ResponseInterface $response): void
    {
        $request->status($response->getStatusCode());
        foreach ($response->getHeaders() as $name => $values) {
            foreach (array_values($values) as $n => $value) {
                $request->header((string) $name, $value, $n === 0);
            }
        }
        $body = $response->getBody();
        if ($body->isSeekable()) {
            $body->rewind();
        }
        while (!$body->eof() && !$request->isAborted()) {
            $request->write($body->read(self::PIECE));
        }
    }

    /** @param array<string, string> $params */
    private function uri(array $params): UriInterface
    {
        $https = $params['HTTPS'] ?? '';
        $scheme = $params['REQUEST_SCHEME'] ?? ($https !== '' && strcasecmp($https, 'off') !== 0 ? 'https' : 'http');
        $host = $params['HTTP_HOST'] ?? '';
        if ($host === '') {
            $host = ($params['SERVER_NAME'] ?? 'localhost') . (isset($params['SERVER_PORT']) ? ":{$params['SERVER_PORT']}" : '');
        }
        $target = $params['REQUEST_URI'] ?? $params['SCRIPT_NAME'] ?? '/';
        [$path, $query] = explode('?', $target, 2) + ['', $params['QUERY_STRING'] ?? ''];
        $uri = $this->uris->createUri()->withScheme($scheme)->withPath('/' . ltrim($path, '/'))->withQuery($query);
        // A Host that is no host is the client's fault and no reason to fail.
        if (preg_match('/^(\[[0-9A-Fa-f:.]+\]|[^:\/?#@\s\[\]]+)(?::(\d{1,5}))?$/D', $host, $match) === 1) {
            $port = isset($match[2]) ? (int) $match[2] : null;
            $uri = $uri->withHost($match[1])->withPort($port !== null && $port > 0 && $port < 65536 ? $port : null);
        }
        return $uri;
    }

    /**
     * @param array<mixed> $files in the shape of $_FILES
     * @return array<mixed> the same tree of UploadedFileInterface
     */
    private function uploads(array $files): array
    {
        $tree = [];
        foreach ($files as $name => $file) {
            if (is_array($file)) {
                $tree[$name] = $this->upload($file['tmp_name'] ?? '', $file['size'] ?? 0, $file['error'] ?? 0, $file['name'] ?? '', $file['type'] ?? '');
            }
        }
        return $tree;
    }

    /** @return UploadedFileInterface|array<mixed> */
    private function upload(mixed $path, mixed $size, mixed $error, mixed $name, mixed $type): UploadedFileInterface|array
    {
        if (is_array($path)) {
            $tree = [];
            foreach (array_keys($path) as $key) {
                $at = static fn (mixed $part): mixed => is_array($part) ? $part[$key] ?? '' : '';
                $tree[$key] = $this->upload($path[$key], $at($size), $at($error), $at($name), $at($type));
            }
            return $tree;
        }
        $text = static fn (mixed $part): string => is_scalar($part) ? (string) $part : '';
        $stream = (int) $text($error) === UPLOAD_ERR_OK ? $this->streams->createStreamFromFile($text($path)) : $this->streams->createStream();
        return $this->files->createUploadedFile($stream, (int) $text($size), (int) $text($error), $text($name), $text($type));
    }
}
