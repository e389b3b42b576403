<?php

declare(strict_types=1);

namespace FcgiGuard\Tests;

use FcgiGuard\Client;
use FcgiGuard\Pool;
use FcgiGuard\Response;

/** A long-running script as FastCGI worker, asked by the package's own client. */
final class WorkerTest extends Processes
{
    /** @param array<string, string> $params */
    private static function ask(string $address, string $query, array $params = [], mixed $body = null, string $type = 'application/octet-stream'): Response
    {
        return (new Client($address, '20s'))->request(query: $query, params: $params, body: $body, contentType: $type);
    }

    public function testSuperglobalsAreThoseOfTheRequest(): void
    {
        [, $address] = $this->worker('loop.php');
        $response = self::ask($address, 'do=echo&a[x]=1&b=%20', [
            'HTTP_COOKIE' => 'c=d+e; c=second; list[one]=%41', 'BYTES' => "\xff\x01", 'SCRIPT_NAME' => '/s', 'PATH_INFO' => '/i',
            'HTTP_AUTHORIZATION' => 'Basic ' . base64_encode('me:se:cret'),
        ], 'b=form&n[]=1&n[]=2', 'application/x-www-form-urlencoded');
        self::assertSame(['application/json'], $response->headers('Content-Type'));
        $seen = json_decode($response->text(), true);
        self::assertSame(['do' => 'echo', 'a' => ['x' => '1'], 'b' => ' '], $seen['get']);
        self::assertSame(['b' => 'form', 'n' => ['1', '2']], $seen['post']);
        self::assertSame(['c' => 'd+e', 'list' => ['one' => 'A']], $seen['cookie']);
        self::assertSame('form', $seen['request']['b']);
        self::assertSame('18 ' . md5('b=form&n[]=1&n[]=2'), $seen['input']);
        $server = array_map('hex2bin', $seen['server']);
        self::assertSame(["\xff\x01", '/s/i', 'me', 'se:cret'], [$server['BYTES'], $server['PHP_SELF'], $server['PHP_AUTH_USER'], $server['PHP_AUTH_PW']]);
        self::assertArrayNotHasKey('PATH', $server, 'the environment is not the request\'s');

        $seen = json_decode(self::ask($address, 'do=echo')->text(), true);
        self::assertSame([[], [], []], [$seen['post'], $seen['cookie'], $seen['files']], 'nothing is left for the next request');
        self::assertArrayNotHasKey('BYTES', $seen['server']);
    }

    public function testUploadsAreFilesUntilTheRequestEnds(): void
    {
        [, $address] = $this->worker('loop.php', ['-d', 'upload_max_filesize=3M', '-d', 'post_max_size=20M']);
        $big = random_bytes(2_500_000) . "\r\n--B\r\r\n--";
        $over = str_repeat('y', 3_200_000);
        $part = static fn (string $head, string $body): string => "--BB\r\nContent-Disposition: form-data; $head\r\n\r\n$body\r\n";
        $body = $part('name="text"', 'some text') . $part("name=\"f\"; filename=\"a/b.bin\"\r\nContent-Type: x/y", $big)
            . $part('name="none"; filename=""', '') . $part('name="n[p][]"; filename="one"', '1') . $part('name="n[p][]"; filename="two"', '22')
            . $part('name="over"; filename="over"', $over) . "--BB--\r\n";
        $seen = json_decode(self::ask($address, 'do=echo', [], $body, 'multipart/form-data; boundary=BB')->text(), true);
        self::assertSame(['text' => 'some text'], $seen['post']);
        $file = $seen['files']['f'];
        self::assertSame(['b.bin', 'a/b.bin', 'x/y', 0, strlen($big)], [$file['name'], $file['full_path'], $file['type'], $file['error'], $file['size']]);
        self::assertSame(md5($big), $seen['uploads']['f']);
        self::assertSame([UPLOAD_ERR_NO_FILE, ''], [$seen['files']['none']['error'], $seen['files']['none']['tmp_name']]);
        self::assertSame([['p' => ['one', 'two']], ['p' => [1, 2]]], [$seen['files']['n']['name'], $seen['files']['n']['size']]);
        self::assertSame(UPLOAD_ERR_INI_SIZE, $seen['files']['over']['error']);
        self::assertTrue(self::eventually(static fn () => !file_exists($file['tmp_name'])), 'the file goes with its request');

        $to = "$this->folder/moved";
        self::assertSame('[false,true]', self::ask($address, 'do=move', ['TARGET' => $to], $body, 'multipart/form-data; boundary=BB')->text());
        self::assertSame(md5($big), md5_file($to));

        $response = self::ask($address, 'do=echo', [], $body . str_repeat('z', 20 << 20), 'multipart/form-data; boundary=BB');
        self::assertSame([], json_decode($response->text(), true)['post']);
        self::assertStringContainsString('post_max_size', $response->errors());
    }

    public function testHeaderIsCaptured(): void
    {
        [, $address] = $this->worker('loop.php');
        $response = self::ask($address, 'do=headers');
        [$list, $captures] = json_decode($response->text(), true);
        self::assertTrue($captures);
        self::assertContains('X-Captured: yes', $list);
        self::assertSame(404, $response->status);
        self::assertSame([['one', 'two'], ['won over'], ['own'], []], array_map([$response, 'headers'], ['X-Two', 'X-Captured', 'X-Own', 'X-Gone']));
        self::assertStringStartsWith('name=value', $response->header('Set-Cookie') ?? '');
        self::assertSame(['text/html; charset=UTF-8'], $response->headers('Content-Type'));
        $next = self::ask($address, 'do=redirect');
        self::assertSame([302, '/elsewhere', null], [$next->status, $next->header('Location'), $next->header('X-Two')]);
        self::assertSame(200, self::ask($address, '')->status, 'nothing is left for the next request');
    }

    public function testTheNextVisitorDoesNotGetTheSession(): void
    {
        [, $address] = $this->worker('loop.php');
        $ask = fn (string $cookie = ''): Response => self::ask($address, 'do=session', ['SESSIONS' => $this->folder] + ($cookie === '' ? [] : ['HTTP_COOKIE' => $cookie]));
        $first = $ask();
        $cookie = strstr((string) $first->header('Set-Cookie'), ';', true) ?: '';
        [$id, $count] = explode(' ', $first->text());
        self::assertSame("PHPSESSID=$id", $cookie);
        self::assertSame("$id 2", $ask($cookie)->text());
        self::assertSame('1', $count);
        [$other, $count] = explode(' ', $ask()->text());
        self::assertNotSame($id, $other);
        self::assertSame('1', $count);
        self::assertSame("$id 3", $ask($cookie)->text());
    }

    public function testBodyCanBeReadInThreeWays(): void
    {
        [, $address] = $this->worker('loop.php');
        $body = str_repeat("line\n", 1_000_000);
        self::assertSame('1000000 5000000 5000000', self::ask($address, 'do=body', [], $body)->text());
        self::assertSame('5000000', self::ask($address, 'do=stream', [], $body)->text());
        self::assertSame('0', self::ask($address, 'do=stream')->text());
    }

    public function testOutputKeepsItsOrderAndItsBytes(): void
    {
        [, $address] = $this->worker('loop.php');
        self::assertSame('one two three four', self::ask($address, 'do=parts')->text());
        $text = self::ask($address, 'do=big&megabytes=30')->text();
        self::assertSame(30 << 20, strlen($text));
        self::assertSame(str_repeat('C', 1 << 20), substr($text, 2 << 20, 1 << 20));
        file_put_contents("$this->folder/file", 'abcdefgh');
        self::assertSame('cde', self::ask($address, 'do=sendfile', ['TARGET' => "$this->folder/file"])->text());
        self::assertSame('xwrong_state', self::ask($address, 'do=late')->text());
        self::assertSame('invalid_argument', self::ask($address, 'do=inject')->text());
        $response = self::ask($address, 'do=close-buffer');
        self::assertSame('', $response->text());
        self::assertStringContainsString('closed the worker\'s output buffer', $response->errors());
        self::assertMatchesRegularExpression('/^\d+ 7$/', self::ask($address, '')->text(), 'and the next request has one again');
    }

    public function testHeadIsAnsweredWithoutABody(): void
    {
        [, $address] = $this->worker('loop.php');
        $response = self::ask($address, 'do=echo', ['REQUEST_METHOD' => 'HEAD']);
        self::assertSame([200, ['application/json'], ''], [$response->status, $response->headers('Content-Type'), $response->text()]);
        self::assertNotSame('', self::ask($address, 'do=echo')->text());
    }

    public function testFinishAnswersBeforeTheWorkIsDone(): void
    {
        [, $address] = $this->worker('loop.php');
        self::assertSame('early', self::ask($address, 'do=finish', ['TARGET' => "$this->folder/later"])->text());
        self::assertTrue(self::eventually(fn () => @file_get_contents("$this->folder/later") === 'done after the answer'));
    }

    /** @return array<string, array{string, int, int, string, string}> */
    public function ends(): array
    {
        return [
            'exception' => ['throw', 255, 500, 'Internal Server Error', 'out of the loop'],
            'exit' => ['exit', 7, 200, 'bye', ''],
            'memory' => ['memory', 255, 500, 'Internal Server Error', 'Allowed memory size'],
        ];
    }

    /** @dataProvider ends */
    public function testWhatEndsTheProcessAnswersTheRequest(string $do, int $code, int $status, string $body, string $line): void
    {
        [$worker, $address] = $this->worker('loop.php', ['-d', 'display_errors=0']);
        $response = self::ask($address, "do=$do");
        self::assertSame([$status, $body], [$response->status, trim($response->text())]);
        $line === '' ? self::assertSame('', $response->errors()) : self::assertStringContainsString($line, $response->errors());
        self::assertSame(1, substr_count($response->errors() . "\n", "\n") - (int) ($line !== ''), 'one line');
        self::assertSame($code, $this->ended($worker));
    }

    public function testAHandlerThatThrowsIsAnsweredAndTheNextRequestGoesOn(): void
    {
        [, $address] = $this->worker('handler.php', ['-d', 'display_errors=0']);
        $response = self::ask($address, 'throw=1');
        self::assertSame([500, 'Internal Server Error'], [$response->status, trim($response->text())]);
        self::assertStringContainsString('RuntimeException: thrown | in a handler', $response->errors());
        $response = self::ask($address, 'throw=late');
        self::assertSame([200, 'partly'], [$response->status, $response->text()]);
        self::assertStringContainsString('RuntimeException', $response->errors());
        self::assertSame(200, self::ask($address, '')->status);
        self::assertStringContainsString('RuntimeException', $this->log());
    }

    public function testATermBetweenRequestsOrInOneEndsTheLoopInOrder(): void
    {
        [$worker, $address] = $this->worker('loop.php');
        self::ask($address, '')->text();
        self::assertSame(0, $this->stop($worker));
    }

    public function testAWebServerThatGoesAwayEndsNothing(): void
    {
        [, $address] = $this->worker('loop.php');
        $response = self::ask($address, 'do=big&megabytes=50');
        foreach ($response->body() as $piece) {
            break;
        }
        $response->abort();
        self::assertMatchesRegularExpression('/^\d+ 2$/', self::ask($address, '')->text());
        // A form that breaks off is not handed out.
        $client = new Client($address, '1s');
        try {
            $client->request(body: 'a=b', params: ['CONTENT_LENGTH' => 10], contentType: 'application/x-www-form-urlencoded')->text();
        } catch (\FcgiGuard\Exception\FcgiGuardException) {
        }
        $client->close();
        self::assertMatchesRegularExpression('/^\d+ [34]$/', self::ask($address, '')->text());
    }

    public function testMemoryStaysFlat(): void
    {
        [, $address] = $this->worker('loop.php');
        $client = new Client($address, '20s', keepConn: true);
        $ask = static fn (string $query = '', ?string $body = null): string => $client->request(query: $query, body: $body, contentType: 'application/x-www-form-urlencoded', params: ['HTTP_COOKIE' => 'a=b'])->text();
        $usage = [];
        for ($round = 0; $round < 4; $round++) {
            for ($n = 0; $n < 2_000; $n++) {
                $ask("n=$n", $n % 2 === 0 ? "a=$n" : null);
            }
            $usage[] = (int) $ask('do=memory_get_usage');
        }
        self::assertLessThan(2_000, $usage[3] - $usage[1], json_encode($usage) ?: '');
    }

    public function testTheClientsMemoryStaysFlatToo(): void
    {
        [, $address] = $this->worker('loop.php');
        $usage = [];
        $client = new Client($address, '20s');
        for ($round = 0; $round < 4; $round++) {
            for ($n = 0; $n < 500; $n++) {
                $client->request(query: "n=$n", body: 'a=b')->text();
                self::ask($address, '')->text();
            }
            gc_collect_cycles();
            $usage[] = memory_get_usage();
        }
        // PHPUnit itself keeps nothing between two rounds without assertions.
        self::assertLessThan(10_000, $usage[3] - $usage[1], json_encode($usage) ?: '');
    }

    public function testUnderAManagerAReloadLosesNothing(): void
    {
        $guard = self::root() . '/target/release/fcgiguard';
        if (!is_executable($guard)) {
            self::markTestSkipped('needs cargo build --release');
        }
        $address = "$this->folder/pool.sock";
        $this->start([$guard, 'run', '--listen', $address, '--control', "$this->folder/ctl", '--workers', '2', '--', PHP_BINARY, __DIR__ . '/apps/handler.php']);
        self::assertTrue(self::eventually(fn () => is_file("$this->folder/ctl") || @stat("$this->folder/ctl") !== false));
        $this->serves($address);
        $pool = new Pool("$this->folder/ctl");
        self::assertTrue(self::eventually(static fn () => array_column($pool->status()['workers'], 'cooperates') === ['library', 'library']));
        $pids = [];
        $until = microtime(true) + 60;
        for ($n = 0, $reloads = 0; $reloads < 3 && microtime(true) < $until; $n++) {
            if ($n % 500 === 100) {
                $pool->reload(wait: false);
            }
            $response = self::ask($address, '');
            self::assertSame(200, $response->status);
            preg_match('/from (\d+)/', $response->text(), $match);
            $pids[$match[1] ?? ''] = true;
            $reloads = $n % 100 === 0 ? $pool->status()['counters']['reloads_ok'] : $reloads;
        }
        self::assertGreaterThan(2, count($pids), 'other workers answered afterwards');
    }
}
