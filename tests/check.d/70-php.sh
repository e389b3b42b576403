#!/bin/sh
# What: the PHP package through FFI: vectors, probe, client, pool; Worker, PSR-7, php-fpm (PHPUnit); beside a pure-PHP client; 20 000 requests behind nginx; Composer
set -eu
php -d ffi.enable=true -d zend.assertions=1 bindings/php/tests/run.php
(cd bindings/php && phpunit --do-not-cache-result)
php -d ffi.enable=true bindings/php/tests/peer.php 0
php -d ffi.enable=true bindings/php/tests/nginx.php 20000
bindings/php/tests/archive.sh
