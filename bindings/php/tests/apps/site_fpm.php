<?php

declare(strict_types=1);

echo (require __DIR__ . '/site.php')($_SERVER['REQUEST_URI']);
