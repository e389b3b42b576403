<?php
parse_str($_SERVER['QUERY_STRING'] ?? '', $query);
usleep(1000 * (int) ($query['sleep'] ?? 0));
header('Content-Type: text/plain');
header('X-Worker: ' . getmypid());
printf("pid=%d app=php uri=%s body=%d\n", getmypid(), $_SERVER['REQUEST_URI'] ?? '', strlen(file_get_contents('php://input')));
