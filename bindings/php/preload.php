<?php

declare(strict_types=1);

/*
 * For php-fpm with its default ffi.enable=preload, where only preloaded code may use FFI. In php.ini:
 *
 *     opcache.preload = /path/to/vendor/fcgiguard/fcgiguard/preload.php
 *     opcache.preload_user = www-data      ; when php-fpm's master is root
 *     ffi.preload = /etc/php/fcgiguard.h   ; from bin/fcgiguard-ffi-header; without it each request loads the library anew
 */

namespace FcgiGuard;

require_once __DIR__ . '/autoload.php';

foreach (['Exception/FcgiGuardException', 'Exception/*', 'Internal/*', '*', 'Adapter/*'] as $files) {
    foreach (glob(__DIR__ . "/src/$files.php") ?: [] as $file) {
        // A class whose parent is of a package that is not here would only warn.
        if (basename($file) !== 'Psr7.php' || interface_exists('Psr\Http\Message\ServerRequestFactoryInterface')) {
            require_once $file;
        }
    }
}
