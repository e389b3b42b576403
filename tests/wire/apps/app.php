<?php
// The suite's application for php-fpm and php-cgi; see ours.c. PHP reads no DATA.
$query = $_SERVER['QUERY_STRING'] ?? '';
header('Content-Type: text/plain');
if ($query === 'early') {
    for ($i = 0; $i < 64; $i++) {
        echo str_repeat('x', 65536);
        flush();
    }
}
if ($query === 'slow') usleep(300000);
if ($query === 'err') error_log('oops');
$len = 0;
$in = fopen('php://input', 'rb');
while (!feof($in)) $len += strlen((string) fread($in, 65536));
printf("len=%d data=? role=%s proxy=%d x=%s\n", $len, $_SERVER['FCGI_ROLE'] ?? '?', strlen($_SERVER['HTTP_PROXY'] ?? ''),
    bin2hex(substr($_SERVER['X'] ?? '', 0, 64)));
if ($query === 'status') exit(3);
