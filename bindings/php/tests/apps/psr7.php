<?php

declare(strict_types=1);

use FcgiGuard\Psr7;
use FcgiGuard\Worker;
use Psr\Http\Message\ServerRequestInterface;

require __DIR__ . '/../bootstrap.php';

Psr7::discover()->run(new Worker($argv[1] ?? null, superglobals: false), static function (ServerRequestInterface $request) {
    if ($request->getUri()->getPath() === '/throw') {
        throw new RuntimeException('no');
    }
    $files = [];
    foreach ($request->getUploadedFiles() as $name => $file) {
        $file = is_array($file) ? $file['x'] : $file;
        $files[$name] = [$file->getClientFilename(), $file->getSize(), $file->getError(), $file->getError() === 0 ? md5((string) $file->getStream()) : ''];
    }
    $response = new Nyholm\Psr7\Response(201, ['Content-Type' => 'application/json', 'X-Two' => ['one', 'two']]);
    $response->getBody()->write((string) json_encode([
        $request->getMethod(), (string) $request->getUri(), $request->getQueryParams(), $request->getParsedBody(),
        $request->getCookieParams(), $request->getHeaderLine('Accept'), $request->getProtocolVersion(), $files,
        md5((string) $request->getBody()), $request->getAttribute(FcgiGuard\Request::class) !== null, $_GET,
    ]));
    return $response;
});
