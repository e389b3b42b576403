<?php

declare(strict_types=1);

namespace FcgiGuard;

use FcgiGuard\Exception\FcgiGuardException;
use FcgiGuard\Exception\LibraryException;
use FFI;

/**
 * Finds and loads libfcgiguard, and says what is missing when it cannot.
 *
 * Looked for in this order: Library::load($file), the environment's FCGIGUARD_LIB, the scope of
 * php.ini's ffi.preload (php-fpm; see README), the source tree, and the system's own search path.
 *
 * @internal the other classes are the interface
 */
final class Library
{
    private const VERSION = '0.1.';
    private const SCOPE = 'FCGIGUARD';

    private static ?FFI $ffi = null;

    /**
     * Loads from this file; without a file, from where the class comment says.
     *
     * @throws LibraryException that says what is missing and what to do
     */
    public static function load(?string $file = null): FFI
    {
        if (self::$ffi !== null && $file === null) {
            return self::$ffi;
        }
        if (!extension_loaded('ffi')) {
            throw self::fault('PHP\'s extension "ffi" is not loaded: install it (Debian: php-common has it) and enable extension=ffi');
        }
        $file ??= getenv('FCGIGUARD_LIB') ?: null;
        $ffi = $file === null ? self::preloaded() : null;
        if ($ffi === null) {
            self::mayLoad();
            $ffi = self::open($file);
        }
        return self::$ffi = $ffi;
    }

    /** The text for php.ini's ffi.preload, after a look whether the library can be loaded. @internal */
    public static function header(?string $file = null): string
    {
        $file ??= getenv('FCGIGUARD_LIB') ?: self::usual();
        self::open($file);
        $declarations = self::declarations($file);
        return '#define FFI_SCOPE "' . self::SCOPE . "\"\n#define FFI_LIB \"$file\"\n$declarations";
    }

    private static function preloaded(): ?FFI
    {
        try {
            $ffi = FFI::scope(self::SCOPE);
        } catch (FFI\Exception) {
            return null;
        }
        self::checkVersion($ffi->fcgiguard_version(), 'ffi.preload');
        return $ffi;
    }

    /** Says why FFI may not be used, if so. */
    private static function mayLoad(): void
    {
        // In a web SAPI "preload" lets only preloaded code in.
        $enable = strtolower((string) ini_get('ffi.enable'));
        if ($enable === 'preload' && PHP_SAPI !== 'cli' && !self::isPreloaded()) {
            $preload = dirname(__DIR__) . '/preload.php';
            throw self::fault("ffi.enable is \"preload\" and this package is not preloaded: set opcache.preload=$preload in php.ini, or ffi.enable=true");
        }
        if (in_array($enable, ['0', '', 'false', 'off', 'no'], true)) {
            throw self::fault('FFI is switched off in php.ini: set ffi.enable=true, or ffi.enable=preload and opcache.preload (see README)');
        }
    }

    private static function isPreloaded(): bool
    {
        $status = function_exists('opcache_get_status') ? @opcache_get_status(false) : false;
        return is_array($status) && in_array(self::class, $status['preload_statistics']['classes'] ?? [], true);
    }

    private static function usual(): string
    {
        $tree = dirname(__DIR__, 3) . '/target/release/libfcgiguard.so';
        return is_file($tree) ? $tree : 'libfcgiguard.so.0';
    }

    private static function open(?string $file): FFI
    {
        $name = $file ?? self::usual();
        try {
            $version = FFI::cdef('const char *fcgiguard_version(void);', $name)->fcgiguard_version();
        } catch (FFI\Exception $error) {
            $why = $error->getMessage();
            $advice = match (true) {
                str_contains($why, 'resolving') => 'that file is no libfcgiguard',
                $file === (getenv('FCGIGUARD_LIB') ?: null) && $file !== null => 'correct FCGIGUARD_LIB: the path of libfcgiguard.so.0',
                default => 'install it (make install), or set FCGIGUARD_LIB=/prefix/lib/libfcgiguard.so.0',
            };
            throw self::fault("libfcgiguard cannot be loaded from $name: $why; $advice");
        }
        // Before the declarations: they may name what another version does not have.
        self::checkVersion($version, $name);
        $declarations = self::declarations($file);
        try {
            return FFI::cdef($declarations, $name);
        } catch (FFI\Exception $error) {
            throw self::fault("libfcgiguard in $name and fcgiguard_php.h are not of one build: {$error->getMessage()}; reinstall both");
        }
    }

    private static function checkVersion(string $version, string $where): void
    {
        if (!str_starts_with($version, self::VERSION)) {
            throw self::fault("libfcgiguard in $where is version $version, this package needs " . self::VERSION . 'x: install both from one release');
        }
    }

    /** The header beside the package, in its source tree, or where `make install` put it with the library. */
    private static function declarations(?string $file = null): string
    {
        $prefixes = [...($file === null ? [] : [dirname($file, 2)]), '/usr', '/usr/local'];
        $headers = array_map(static fn (string $prefix): string => "$prefix/include/fcgiguard_php.h", $prefixes);
        foreach ([dirname(__DIR__) . '/fcgiguard_php.h', dirname(__DIR__, 3) . '/include/fcgiguard_php.h', ...$headers] as $path) {
            if (is_file($path)) {
                return (string) file_get_contents($path);
            }
        }
        throw self::fault('fcgiguard_php.h was not found beside the package or in ' . implode(' or ', array_map('dirname', $headers)) . ': install it with the library');
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
