<?php

declare(strict_types=1);

// A small application, for the worker and for php-fpm alike: it boots (classes, routes, settings) and returns its handler.

use Nyholm\Psr7\Factory\Psr17Factory;

require_once __DIR__ . '/../bootstrap.php';

$factory = new Psr17Factory();
$settings = parse_ini_string("title = A page\nlanguage = en\nitems = 30");
$routes = [];
for ($n = 0; $n < 100; $n++) {
    $routes["#^/section$n/(?<id>\\d+)$#"] = static fn (array $match): string => "section $n, item {$match['id']}";
}
$routes['#^/#'] = static function (array $match) use ($settings): string {
    $rows = '';
    for ($n = 0; $n < $settings['items']; $n++) {
        $rows .= '<li>' . htmlspecialchars("item <$n>") . '</li>';
    }
    return "<!doctype html><html lang=\"{$settings['language']}\"><title>{$settings['title']}</title><ul>$rows</ul></html>\n";
};

return static function (string $path) use ($factory, $routes): string {
    $uri = $factory->createUri("http://localhost$path");
    foreach ($routes as $pattern => $route) {
        if (preg_match($pattern, $uri->getPath(), $match) === 1) {
            $response = $factory->createResponse(200)->withHeader('Content-Type', 'text/html; charset=utf-8')
                ->withBody($factory->createStream($route($match)));
            header('Content-Type: ' . $response->getHeaderLine('Content-Type'));
            return (string) $response->getBody();
        }
    }
    http_response_code(404);
    return 'not found';
};
