<?php

declare(strict_types=1);

namespace FcgiGuard\Tests;

/**
 * A FastCGI client in nothing but PHP, as short as it can be: what Client is compared with in peer.php.
 * It waits in stream_select, reads 64 KiB at a time and copies each byte once; no option, no check beyond what the cases need.
 */
final class PlainClient
{
    /** @var resource|null */
    private $stream = null;

    public function __construct(private readonly string $path, private readonly float $timeout, private readonly bool $keep)
    {
    }

    /**
     * @param array<string, string> $params
     * @return array{int, string, string, int, int} HTTP status, body, STDERR, application and protocol status
     */
    public function request(array $params, string $body): array
    {
        $this->stream ??= $this->connect();
        $pairs = '';
        foreach ($params as $name => $value) {
            foreach ([strlen($name), strlen($value)] as $length) {
                $pairs .= $length < 128 ? chr($length) : pack('N', $length | 0x80000000);
            }
            $pairs .= $name . $value;
        }
        $out = pack('CCnnCC', 1, 1, 1, 8, 0, 0) . pack('nCx5', 1, (int) $this->keep);
        foreach ([4 => $pairs, 5 => $body] as $type => $stream) {
            foreach ($stream === '' ? [] : str_split($stream, 65535) as $piece) {
                $out .= pack('CCnnCC', 1, $type, 1, strlen($piece), 0, 0) . $piece;
            }
            $out .= pack('CCnnCC', 1, $type, 1, 0, 0, 0);
        }
        [$sent, $in, $at, $streams] = [0, '', 0, [6 => '', 7 => '']];
        for ($end = microtime(true) + $this->timeout;;) {
            $left = $end - microtime(true);
            [$read, $write, $except] = [[$this->stream], $sent < strlen($out) ? [$this->stream] : null, null];
            if ($left <= 0 || !stream_select($read, $write, $except, (int) $left, (int) (fmod($left, 1) * 1e6))) {
                $this->close();
                throw new \RuntimeException('timeout');
            }
            if ($write) {
                $sent += (int) @fwrite($this->stream, substr($out, $sent, 1 << 18));
            }
            if (!$read) {
                continue;
            }
            $piece = (string) @fread($this->stream, 1 << 16);
            if ($piece === '' && feof($this->stream)) {
                $this->close();
                throw new \RuntimeException('closed');
            }
            [$in, $at] = [substr($in, $at) . $piece, 0];
            while (strlen($in) - $at >= 8) {
                $head = unpack('Cversion/Ctype/nid/nlength/Cpadding', $in, $at);
                if (strlen($in) - $at < 8 + $head['length'] + $head['padding']) {
                    break;
                }
                $content = substr($in, $at + 8, $head['length']);
                $at += 8 + $head['length'] + $head['padding'];
                if ($head['type'] === 3) {
                    $ended = unpack('Napp/Cprotocol', $content);
                    $this->keep || $this->close();
                    [$fields, $answer] = explode("\r\n\r\n", $streams[6], 2) + [1 => ''];
                    $status = preg_match('/^Status: (\d+)/mi', $fields, $match) === 1 ? (int) $match[1] : 200;
                    return [$status, $answer, $streams[7], $ended['app'], $ended['protocol']];
                }
                $streams[$head['type']] .= $content;
            }
        }
    }

    /** @return resource */
    private function connect()
    {
        $stream = stream_socket_client("unix://$this->path", $code, $why, $this->timeout);
        if ($stream === false) {
            throw new \RuntimeException($why);
        }
        stream_set_blocking($stream, false);
        stream_set_read_buffer($stream, 0);
        stream_set_chunk_size($stream, 1 << 18);
        return $stream;
    }

    public function close(): void
    {
        $this->stream = null;
    }
}
