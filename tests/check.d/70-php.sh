#!/bin/sh
# What: the PHP package through FFI: vectors, probe, exceptions
set -eu
php -d ffi.enable=true -d zend.assertions=1 bindings/php/tests/run.php
