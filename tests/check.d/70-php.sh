#!/bin/sh
# What: the PHP package through FFI: vectors, probe, client, pool; Worker, PSR-7, php-fpm (PHPUnit); 20 000 requests behind nginx
set -eu
php -d ffi.enable=true -d zend.assertions=1 bindings/php/tests/run.php
(cd bindings/php && phpunit --do-not-cache-result)
php -d ffi.enable=true bindings/php/tests/nginx.php 20000
