<?php

declare(strict_types=1);

// Composer's autoloader where it was used, the package's own and Debian's packages otherwise.
if (is_file(__DIR__ . '/../vendor/autoload.php')) {
    require __DIR__ . '/../vendor/autoload.php';
} else {
    require __DIR__ . '/../autoload.php';
    foreach (['/usr/share/php/Nyholm/Psr7/autoload.php', '/usr/share/php/GuzzleHttp/Psr7/autoload.php'] as $file) {
        if (is_file($file)) {
            require_once $file;
        }
    }
    spl_autoload_register(static function (string $class): void {
        if ($class === 'FcgiGuard\Tests\Processes') {
            require __DIR__ . '/Processes.php';
        }
    });
}
