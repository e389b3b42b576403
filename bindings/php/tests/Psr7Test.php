<?php

declare(strict_types=1);

namespace FcgiGuard\Tests;

use FcgiGuard\Client;
use FcgiGuard\Response;

/** A PSR-7 application as worker. */
final class Psr7Test extends Processes
{
    public function testRequestAndResponseComeAcross(): void
    {
        if (!class_exists(\Nyholm\Psr7\Response::class)) {
            self::markTestSkipped('needs nyholm/psr7');
        }
        [, $address] = $this->worker('psr7.php', ['-d', 'display_errors=0']);
        $client = new Client($address, '20s');
        $params = ['HTTP_HOST' => 'example.org:8080', 'HTTPS' => 'on', 'HTTP_ACCEPT' => 'a/b', 'HTTP_COOKIE' => 'c=d', 'SERVER_PROTOCOL' => 'HTTP/2.0'];
        $ask = static fn (string $uri, array $more = [], ?string $body = null, string $type = ''): Response => $client->request(
            params: $more + $params + ['REQUEST_URI' => $uri],
            body: $body,
            query: explode('?', $uri, 2)[1] ?? '',
            contentType: $type,
        );

        $response = $ask('/some/path?a=b&c[]=d');
        self::assertSame([201, ['one', 'two'], 'application/json'], [$response->status, $response->headers('X-Two'), $response->header('Content-Type')]);
        self::assertSame(
            ['GET', 'https://example.org:8080/some/path?a=b&c%5B%5D=d', ['a' => 'b', 'c' => ['d']], null, ['c' => 'd'], 'a/b', '2.0', [], md5(''), true, []],
            json_decode($response->text(), true),
        );

        $seen = json_decode($ask('/p', [], 'x=y', 'application/x-www-form-urlencoded')->text(), true);
        self::assertSame([['x' => 'y'], md5('x=y')], [$seen[3], $seen[8]]);
        $seen = json_decode($ask('/p', [], '{"json":1}', 'application/json')->text(), true);
        self::assertSame([null, md5('{"json":1}')], [$seen[3], $seen[8]]);

        $part = static fn (string $head, string $body): string => "--BB\r\nContent-Disposition: form-data; $head\r\n\r\n$body\r\n";
        $body = $part('name="f"; filename="one"', 'content') . $part('name="n[x]"; filename="two"', '2') . $part('name="e"; filename=""', '') . "--BB--\r\n";
        $seen = json_decode($ask('/p', [], $body, 'multipart/form-data; boundary=BB')->text(), true);
        self::assertSame(['f' => ['one', 7, 0, md5('content')], 'n' => ['two', 1, 0, md5('2')], 'e' => ['', 0, UPLOAD_ERR_NO_FILE, '']], $seen[7]);

        self::assertSame(500, $ask('/throw')->status);
        self::assertSame(201, $ask('/x', ['HTTP_HOST' => 'no host@#'])->status, 'a Host that is none is no reason to fail');
        foreach (['//evil/x', 'http://other/x', '*', ''] as $target) {
            self::assertSame(201, $ask($target)->status, "target \"$target\"");
        }
    }
}
