<?php

declare(strict_types=1);

namespace FcgiGuard\Internal;

use FFI;

/**
 * C objects that the calls of one handle share. Used again for the next handle: PHP 8.2 loses some hundred bytes for each newly
 * made array of pointers that is read.
 *
 * @internal
 */
final class Scratch
{
    /** Bytes moved at once. */
    public const PIECE = 65536;

    /** @var list<self> those that no handle uses now */
    private static array $spare = [];

    public readonly FFI\CData $error;
    public readonly FFI\CData $buffer;
    public readonly FFI\CData $name;
    public readonly FFI\CData $nameLength;
    public readonly FFI\CData $value;
    public readonly FFI\CData $valueLength;

    private function __construct(public readonly FFI $ffi)
    {
        $this->error = $ffi->fcgiguard_error_new();
        $this->buffer = self::made($ffi, 'uint8_t[' . self::PIECE . ']');
        $this->name = self::made($ffi, 'const uint8_t *[1]');
        $this->nameLength = self::made($ffi, 'size_t[1]');
        $this->value = self::made($ffi, 'const uint8_t *[1]');
        $this->valueLength = self::made($ffi, 'size_t[1]');
    }

    public function __destruct()
    {
        $this->ffi->fcgiguard_error_free($this->error);
    }

    public static function take(FFI $ffi): self
    {
        $spare = array_pop(self::$spare);
        return $spare !== null && $spare->ffi === $ffi ? $spare : new self($ffi);
    }

    /** The handle that took it is gone. */
    public function giveBack(): void
    {
        self::$spare[] = $this;
    }

    private static function made(FFI $ffi, string $type): FFI\CData
    {
        return $ffi->new($type) ?? throw new \LogicException("FFI has no $type");
    }
}
