<?php
// php-cgi's hello; the size of its answer is BENCH_BYTES.
header('Content-Type: text/plain');
echo str_repeat('x', (int) getenv('BENCH_BYTES'));
