<?php

declare(strict_types=1);

namespace FcgiGuard\Tests;

use FcgiGuard\Internal\Multipart;
use PHPUnit\Framework\TestCase;

/** multipart/form-data as bytes, without a server. */
final class MultipartTest extends TestCase
{
    /**
     * @param list<string> $pieces
     * @return array{array<mixed>, array<mixed>, list<string>}
     */
    private static function parse(array $pieces): array
    {
        $parser = new Multipart('b');
        foreach ($pieces as $piece) {
            $parser->feed($piece);
        }
        [$post, $files] = $parser->finish();
        $texts = array_map(static fn (string $path): string => is_file($path) ? (string) file_get_contents($path) : '(gone)', $parser->paths);
        array_map(static fn (string $path) => @unlink($path), $parser->paths);
        array_walk_recursive($files, static function (mixed &$value): void {
            $value = is_string($value) && str_starts_with($value, '/') ? 'path' : $value;
        });
        return [$post, $files, $texts];
    }

    public function testEverySplitGivesTheSame(): void
    {
        $body = "preamble\r\n--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--b\r\ncontent-disposition: form-data; name=x[y]\r\n\r\n--bb\r\n-\r\n--\r\n"
            . "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"C:\\dir\\q\\\"uote.txt\"\r\nContent-Type: t/x\r\n\r\n\r\n\r\n--\r\n--b--\r\nepilogue";
        $whole = self::parse([$body]);
        self::assertSame(['a' => '', 'x' => ['y' => "--bb\r\n-\r\n--"]], $whole[0]);
        self::assertSame(['q"uote.txt', 't/x', 0, 6], [$whole[1]['f']['name'], $whole[1]['f']['type'], $whole[1]['f']['error'], $whole[1]['f']['size']]);
        self::assertSame(["\r\n\r\n--"], $whole[2]);
        self::assertSame($whole, self::parse(str_split($body)));
        for ($at = 1; $at < strlen($body); $at++) {
            self::assertSame($whole, self::parse([substr($body, 0, $at), substr($body, $at)]), "split at $at");
        }
    }

    public function testABodyThatBreaksOffIsAPartialFile(): void
    {
        [$post, $files, $texts] = self::parse(["--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nhalf of"]);
        self::assertSame([[], UPLOAD_ERR_PARTIAL, 0, ''], [$post, $files['f']['error'], $files['f']['size'], $files['f']['tmp_name']]);
        self::assertSame(['(gone)'], $texts);
    }

    public function testLimitsHold(): void
    {
        $part = static fn (string $name): string => "--b\r\nContent-Disposition: form-data; name=\"$name\"; filename=\"$name\"\r\n\r\n1\r\n";
        $parser = new Multipart('b');
        $parser->feed(implode('', array_map($part, range(1, 25))) . '--b--');
        [, $files] = $parser->finish();
        array_map('unlink', $parser->paths);
        self::assertCount((int) ini_get('max_file_uploads'), $files);
        self::assertStringContainsString('max_file_uploads', $parser->notes[0]);

        $parser = new Multipart('b');
        $parser->feed("--b\r\n" . str_repeat('x', 20_000));
        self::assertSame([[], []], $parser->finish());
        self::assertStringContainsString('head of a part', $parser->notes[0]);

        $parser = new Multipart('b');
        $parser->feed("--b\r\nContent-Disposition: form-data; name=\"MAX_FILE_SIZE\"\r\n\r\n3\r\n" . str_replace("\r\n1\r\n", "\r\n1234\r\n", $part('f')) . "--b--\r\n");
        self::assertSame(UPLOAD_ERR_FORM_SIZE, $parser->finish()[1]['f']['error']);
    }

    public function testBoundaryOfAContentType(): void
    {
        self::assertSame('x y', Multipart::boundary('multipart/form-data; charset=utf-8; boundary="x y"'));
        self::assertSame('--abc', Multipart::boundary('Multipart/Form-Data;boundary=--abc; x=y'));
        self::assertNull(Multipart::boundary('multipart/form-data'));
        self::assertNull(Multipart::boundary('multipart/mixed; boundary=x'));
    }
}
