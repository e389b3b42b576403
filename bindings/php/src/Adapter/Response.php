<?php

declare(strict_types=1);

namespace FcgiGuard\Adapter;

/** A whole answer, with the calls of hollodotme/fast-cgi-client. */
final class Response
{
    /**
     * @internal
     * @param list<array{string, string}> $fields
     */
    public function __construct(
        private readonly array $fields,
        private readonly string $body,
        private readonly string $error,
        private readonly float $duration,
    ) {
    }

    public function getBody(): string
    {
        return $this->body;
    }

    /** Head and body. */
    public function getOutput(): string
    {
        $head = '';
        foreach ($this->fields as [$name, $value]) {
            $head .= "$name: $value\r\n";
        }
        return "$head\r\n$this->body";
    }

    public function getError(): string
    {
        return $this->error;
    }

    /** Seconds from the sending to the end of the answer. */
    public function getDuration(): float
    {
        return $this->duration;
    }

    /** @return array<string, list<string>> */
    public function getHeaders(): array
    {
        $headers = [];
        foreach ($this->fields as [$name, $value]) {
            $headers[$name][] = $value;
        }
        return $headers;
    }

    /** @return list<string> the values of a field, whose name may be in any case */
    public function getHeader(string $name): array
    {
        return array_column(array_filter($this->fields, static fn (array $field): bool => strcasecmp($field[0], $name) === 0), 1);
    }

    public function getHeaderLine(string $name): string
    {
        return implode(', ', $this->getHeader($name));
    }
}
