<?php

declare(strict_types=1);

// Runs inside php-fpm: probes and asks the server that its query names, and says what came of it.

use FcgiGuard\Client;
use FcgiGuard\Exception\FcgiGuardException;
use FcgiGuard\Probe;

require_once __DIR__ . '/../../autoload.php';

try {
    $report = Probe::check($_GET['address'], timeout: '10s');
    $response = (new Client($_GET['address'], '10s'))->request(query: 'do=echo', body: 'a=b', contentType: 'application/x-www-form-urlencoded');
    $post = json_decode($response->text(), true)['post'];
    echo json_encode([PHP_SAPI, ini_get('ffi.enable'), $report->verdict, $response->status, $post]);
} catch (FcgiGuardException $error) {
    echo json_encode([PHP_SAPI, ini_get('ffi.enable'), get_class($error), $error->getMessage()]);
}
