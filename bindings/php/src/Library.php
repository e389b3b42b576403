<?php

declare(strict_types=1);

namespace FcgiGuard;

use FcgiGuard\Exception\FcgiGuardException;
use FcgiGuard\Exception\LibraryException;
use FFI;

/**
 * Finds and loads libfcgiguard, and says what is missing when it cannot.
 *
 * Looked for in this order: Library::load($file), the environment's FCGIGUARD_LIB, a scope preloaded under the name
 * "FCGIGUARD" (php-fpm with ffi.enable=preload), the source tree, and the system's own search path.
 *
 * @internal the other classes are the interface
 */
final class Library
{
    private const VERSION = '0.1.';

    private static ?FFI $ffi = null;

    /** Loads from this file; without a file, from where the class comment says. */
    public static function load(?string $file = null): FFI
    {
        if (self::$ffi !== null && $file === null) {
            return self::$ffi;
        }
        if (!extension_loaded('ffi')) {
            throw self::fault('PHP\'s extension "ffi" is not loaded: install it (Debian: php-common has it) and enable extension=ffi');
        }
        $ffi = self::open($file);
        /** @phpstan-ignore-next-line declared by the header */
        $found = $ffi->fcgiguard_version();
        if (!str_starts_with($found, self::VERSION)) {
            throw self::fault("libfcgiguard is version $found, this package needs " . self::VERSION . 'x');
        }
        return self::$ffi = $ffi;
    }

    private static function open(?string $file): FFI
    {
        $file ??= getenv('FCGIGUARD_LIB') ?: null;
        if ($file === null) {
            try {
                return FFI::scope('FCGIGUARD');
            } catch (FFI\Exception) {
                // Not preloaded: go on.
            }
        }
        $enable = (string) ini_get('ffi.enable');
        if ($enable === 'preload' && PHP_SAPI !== 'cli' || $enable === '0' || $enable === '') {
            throw self::fault("ffi.enable is \"$enable\": set ffi.enable=true, or preload the header with ffi.preload (see README)");
        }
        $tree = dirname(__DIR__, 3) . '/target/release/libfcgiguard.so';
        $name = $file ?? (is_file($tree) ? $tree : 'libfcgiguard.so.0');
        try {
            return FFI::cdef(self::declarations(), $name);
        } catch (FFI\Exception $error) {
            throw self::fault("libfcgiguard cannot be loaded from $name: {$error->getMessage()}; install it, or set FCGIGUARD_LIB to its path");
        }
    }

    private static function declarations(): string
    {
        foreach ([__DIR__ . '/../fcgiguard_php.h', dirname(__DIR__, 3) . '/include/fcgiguard_php.h', '/usr/include/fcgiguard_php.h', '/usr/local/include/fcgiguard_php.h'] as $path) {
            if (is_file($path)) {
                return (string) file_get_contents($path);
            }
        }
        throw self::fault('fcgiguard_php.h was not found beside the package or in /usr/include: reinstall the package');
    }

    private static function fault(string $message): LibraryException
    {
        return new LibraryException($message, -407, 'unsupported');
    }

    /**
     * Runs a call of the C library that takes an error as its last argument, and throws if it fails.
     *
     * @param callable(FFI\CData): int $call gets the error handle
     */
    public static function call(callable $call): int
    {
        $ffi = self::load();
        $error = $ffi->fcgiguard_error_new();
        try {
            $result = $call($error);
            if ($result < 0) {
                $name = $ffi->fcgiguard_code_name($result) ?? 'unknown';
                throw FcgiGuardException::of($result, $name, $ffi->fcgiguard_error_message($error));
            }
            return $result;
        } finally {
            $ffi->fcgiguard_error_free($error);
        }
    }
}
