<?php

declare(strict_types=1);

namespace FcgiGuard\Internal;

/** Sizes of php.ini in bytes. @internal */
final class Ini
{
    /** The value of a setting such as 8M; 0 when it is unset or says "none". */
    public static function bytes(string $name): int
    {
        $text = trim((string) ini_get($name));
        $shift = match (strtolower(substr($text, -1))) {
            'k' => 10,
            'm' => 20,
            'g' => 30,
            default => 0,
        };
        return max(0, (int) $text << $shift);
    }
}
