<?php

declare(strict_types=1);

header('Content-Type: text/plain');
echo 'Hello ', htmlspecialchars((string) ($_GET['name'] ?? 'world')), ' from ', getmypid(), "\n";
