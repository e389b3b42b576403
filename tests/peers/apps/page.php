<?php
// sleep=MS sleeps on when a signal cuts it short, so that a "slow request" is slow under every manager.
parse_str($_SERVER['QUERY_STRING'] ?? '', $query);
$until = hrtime(true) + 1000000 * (int) ($query['sleep'] ?? 0);
while (($left = intdiv($until - hrtime(true), 1000)) > 0) {
    usleep($left);
}
header('Content-Type: text/plain');
header('X-Worker: ' . getmypid());
printf("pid=%d body=%d\n", getmypid(), strlen(file_get_contents('php://input')));
