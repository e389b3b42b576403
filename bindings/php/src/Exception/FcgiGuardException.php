<?php

declare(strict_types=1);

namespace FcgiGuard\Exception;

/** Root of every exception of this package. getCode() is the stable number of the one error table. */
class FcgiGuardException extends \RuntimeException
{
    /** The code's name, for example "invalid_address". */
    public readonly string $name;

    public function __construct(string $message, int $code, string $name)
    {
        parent::__construct($message, $code);
        $this->name = $name;
    }

    /** The exception class of a code's group (hundreds of the number). */
    public static function of(int $code, string $name, string $message): self
    {
        return match (intdiv($code, 100)) {
            -1, -2 => new UsageException($message, $code, $name),
            -3 => new ProtocolException($message, $code, $name),
            -4 => new SystemException($message, $code, $name),
            -5 => new ConnectionException($message, $code, $name),
            -6 => new PoolException($message, $code, $name),
            default => new self($message, $code, $name),
        };
    }
}
