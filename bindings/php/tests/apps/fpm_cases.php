<?php

declare(strict_types=1);

// What peer.php asks of php-fpm.
http_response_code((int) ($_GET['code'] ?? 200));
if (isset($_GET['say'])) {
    error_log($_GET['say']);
}
usleep((int) ($_GET['sleep'] ?? 0) * 1000);
if (($_GET['die'] ?? '') === '1') {
    posix_kill(getmypid(), 9);
}
for ($n = 0; $n < (int) ($_GET['megabytes'] ?? 0); $n++) {
    echo str_repeat(chr(65 + $n % 26), 1 << 20);
}
if (isset($_GET['die'])) {
    posix_kill(getmypid(), 9);
}
if (!isset($_GET['megabytes'])) {
    $body = file_get_contents('php://input');
    echo json_encode(['method' => $_SERVER['REQUEST_METHOD'], 'query' => $_GET, 'md5' => md5((string) $body)]);
}
