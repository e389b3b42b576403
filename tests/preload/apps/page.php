<?php
$query = $_SERVER['QUERY_STRING'] ?? '';
if (preg_match('/sleep=(\d+)/', $query, $m)) usleep(1000 * (int)$m[1]);
echo 'ok ', getmypid(), ' ', strpos($query, 'child') !== false ? shell_exec('grep SigBlk /proc/self/status') : '';
