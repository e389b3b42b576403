<?php

declare(strict_types=1);

// For programs without Composer: require 'bindings/php/autoload.php'.
spl_autoload_register(static function (string $class): void {
    if (str_starts_with($class, 'FcgiGuard\\')) {
        $file = __DIR__ . '/src/' . str_replace('\\', '/', substr($class, 10)) . '.php';
        if (is_file($file)) {
            require $file;
        }
    }
});
