<?php

declare(strict_types=1);

namespace FcgiGuard;

/** What a probe found. Times are in microseconds; null is "not known". */
final class ProbeResult
{
    /** @param array<string, mixed> $fields everything the probe knows, as in the JSON of `fcgiguard probe --json` */
    private function __construct(
        public readonly string $address,
        public readonly string $verdict,
        public readonly string $outcome,
        public readonly int $exitCode,
        public readonly string $detail,
        public readonly int $elapsedUs,
        public readonly string $line,
        public readonly array $fields,
    ) {
    }

    /** @internal */
    public static function fromJson(string $json, string $line): self
    {
        /** @var array<string, mixed> $fields */
        $fields = json_decode($json, true, 16, JSON_THROW_ON_ERROR);
        return new self(
            (string) $fields['address'],
            (string) $fields['verdict'],
            (string) $fields['outcome'],
            (int) $fields['exit'],
            (string) ($fields['detail'] ?? ''),
            (int) $fields['elapsed_us'],
            $line,
            $fields,
        );
    }

    public function isAlive(): bool
    {
        return $this->outcome === 'alive';
    }
}
