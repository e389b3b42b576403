<?php

declare(strict_types=1);

namespace FcgiGuard\Tests;

use FcgiGuard\Adapter\Client;
use FcgiGuard\Adapter\Request;
use FcgiGuard\Adapter\Response;
use FcgiGuard\Adapter\UnixDomainSocket;
use FcgiGuard\Exception\ConnectionException;

/** The call shape of the pure-PHP clients, against a worker. */
final class AdapterTest extends Processes
{
    public function testRequestsAndAnswers(): void
    {
        [, $address] = $this->worker('loop.php');
        $connection = new UnixDomainSocket($address, 5000, 20000);
        $client = new Client();
        $request = new Request('POST', '/srv/x.php', 'a=b');
        $request->setRequestUri('/x?do=echo');
        for ($n = 0; $n < 3; $n++) {
            $response = $client->sendRequest($connection, $request);
            self::assertSame(['a' => 'b'], json_decode($response->getBody(), true)['post']);
            self::assertSame('application/json', $response->getHeaderLine('content-type'));
        }
        $request = new Request('GET', '/srv/x.php');
        $request->setRequestUri('/x?do=headers');
        $response = $client->tryRequest($connection, $request);
        self::assertSame(['one', 'two'], $response->getHeader('X-Two'));
        self::assertSame(['404'], $response->getHeaders()['Status']);
        self::assertStringContainsString("\r\n\r\n" . $response->getBody(), $response->getOutput());
        self::assertGreaterThan(0, $response->getDuration());
    }

    public function testRequestsOfAnotherPackageAndCallbacks(): void
    {
        [, $address] = $this->worker('loop.php');
        $connection = new UnixDomainSocket($address);
        $foreign = new class {
            /** @return array<string, mixed> */
            public function getParams(): array
            {
                return ['REQUEST_METHOD' => 'POST', 'QUERY_STRING' => 'do=echo', 'CONTENT_TYPE' => 'application/x-www-form-urlencoded', 'CONTENT_LENGTH' => 3];
            }

            public function getContent(): object
            {
                return new class {
                    public function getContent(): string
                    {
                        return 'x=y';
                    }
                };
            }
        };
        $client = new Client();
        // The worker serves one at a time: the second waits in its queue.
        $request = new Request('GET', '/srv/x.php');
        $request->addResponseCallbacks(static function (Response $response) use (&$seen): void {
            $seen = $response->getBody();
        });
        $ids = [$client->sendAsyncRequest($connection, $foreign), $client->sendAsyncRequest($connection, $request)];
        self::assertTrue($client->hasUnhandledResponses());
        self::assertSame(['x' => 'y'], json_decode($client->readResponse($ids[0])->getBody(), true)['post']);
        $client->waitForResponse($ids[1]);
        self::assertMatchesRegularExpression('/^\d+ 2$/', $seen ?? '');
        self::assertFalse($client->hasUnhandledResponses());

        $this->expectException(ConnectionException::class);
        $client->tryRequest(new UnixDomainSocket("$this->folder/none"), $request, 2);
    }
}
