<?php

declare(strict_types=1);

namespace FcgiGuard;

/** The answer to a request: its head is here, its body is read when it is asked for. */
final class Response
{
    /** Bytes of the error stream that are kept; more is dropped. */
    private const ERRORS = 1 << 20;

    private string $errors = '';
    private bool $ended = false;
    private int $appStatus = -1;
    private int $protocolStatus = -1;

    /**
     * @internal
     * @param list<array{string, string}> $fields
     */
    public function __construct(
        private readonly Client $client,
        private readonly int $turn,
        /** The HTTP status. */
        public readonly int $status,
        /** Names and values of the head in order, as the application sent them. */
        public readonly array $fields,
    ) {
    }

    /** The value of the first field of this name, in any case; null if there is none. */
    public function header(string $name): ?string
    {
        return $this->headers($name)[0] ?? null;
    }

    /** @return list<string> the values of every field of this name */
    public function headers(string $name): array
    {
        return array_column(array_filter($this->fields, static fn (array $field): bool => strcasecmp($field[0], $name) === 0), 1);
    }

    /**
     * The pieces of the body as they come, once.
     *
     * @return \Generator<int, string>
     */
    public function body(): \Generator
    {
        while (!$this->ended) {
            [$kind, $bytes] = $this->client->readFor($this->turn);
            if ($kind === 1) {
                yield $bytes;
            } elseif ($kind === 2) {
                $this->errors .= substr($bytes, 0, max(0, self::ERRORS - strlen($this->errors)));
            } else {
                $this->ended = true;
                [$this->appStatus, $this->protocolStatus] = $this->client->statusFor($this->turn);
            }
        }
    }

    /** What is left of the body. */
    public function text(): string
    {
        $text = '';
        foreach ($this->body() as $piece) {
            $text .= $piece;
        }
        return $text;
    }

    /** What the application has written to its error stream so far. */
    public function errors(): string
    {
        return $this->errors;
    }

    /** What the application returned; -1 before the body's end. */
    public function appStatus(): int
    {
        return $this->appStatus;
    }

    /** What the protocol says: 0 complete, 1 cannot multiplex, 2 overloaded, 3 unknown role; -1 before the body's end. */
    public function protocolStatus(): int
    {
        return $this->protocolStatus;
    }

    /** Gives the rest up: the application is asked to stop, and the connection is closed. */
    public function abort(): void
    {
        $this->ended = true;
        $this->client->abortFor($this->turn);
    }
}
