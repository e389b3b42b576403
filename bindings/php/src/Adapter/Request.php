<?php

declare(strict_types=1);

namespace FcgiGuard\Adapter;

/** A request for Client::sendRequest(): a method, a script and a body. */
final class Request
{
    /** @var array<string, string> */
    private array $vars = [];
    /** @var list<callable> */
    private array $responseCallbacks = [];
    /** @var list<callable> */
    private array $failureCallbacks = [];

    public function __construct(
        private readonly string $method,
        private readonly string $script,
        private readonly string $content = '',
        private readonly string $contentType = 'application/x-www-form-urlencoded',
    ) {
    }

    /** A CGI parameter; it replaces what the request would send by itself. */
    public function setCustomVar(string $name, string $value): void
    {
        $this->vars[$name] = $value;
    }

    /** @param array<string, string> $vars */
    public function addCustomVars(array $vars): void
    {
        $this->vars = $vars + $this->vars;
    }

    public function setRequestUri(string $uri): void
    {
        $this->addCustomVars(['REQUEST_URI' => $uri, 'QUERY_STRING' => explode('?', $uri, 2)[1] ?? '']);
    }

    public function addResponseCallbacks(callable ...$callbacks): void
    {
        array_push($this->responseCallbacks, ...array_values($callbacks));
    }

    public function addFailureCallbacks(callable ...$callbacks): void
    {
        array_push($this->failureCallbacks, ...array_values($callbacks));
    }

    /** @return list<callable> */
    public function getResponseCallbacks(): array
    {
        return $this->responseCallbacks;
    }

    /** @return list<callable> */
    public function getFailureCallbacks(): array
    {
        return $this->failureCallbacks;
    }

    public function getContent(): string
    {
        return $this->content;
    }

    /** @return array<string, string> */
    public function getParams(): array
    {
        return $this->vars + [
            'REQUEST_METHOD' => $this->method,
            'SCRIPT_FILENAME' => $this->script,
            'SCRIPT_NAME' => '/' . basename($this->script),
            'CONTENT_TYPE' => $this->content === '' ? '' : $this->contentType,
            'CONTENT_LENGTH' => (string) strlen($this->content),
        ];
    }
}
