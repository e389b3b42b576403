<?php

declare(strict_types=1);

namespace FcgiGuard\Tests;

/** nginx, php-fpm and a guarded pool in a folder of their own, and HTTP load on them. For nginx.php and bench.php. */
final class Servers
{
    public readonly string $folder;
    public readonly string $root;
    /** @var array<string, resource> */
    private array $running = [];

    public function __construct()
    {
        $this->root = dirname(__DIR__, 3);
        $this->folder = sys_get_temp_dir() . '/fcgiguard-php-' . bin2hex(random_bytes(6));
        mkdir($this->folder, 0700);
    }

    public function __destruct()
    {
        foreach (array_reverse(array_keys($this->running)) as $name) {
            $this->stop($name);
        }
        exec('rm -rf ' . escapeshellarg($this->folder));
    }

    public function stop(string $name): void
    {
        $process = $this->running[$name];
        proc_terminate($process);
        for ($end = microtime(true) + 20; proc_get_status($process)['running']; usleep(5_000)) {
            if (microtime(true) > $end) {
                proc_terminate($process, 9);
            }
        }
        proc_close($process);
        unset($this->running[$name]);
    }

    /** @param list<string> $command */
    public function start(string $name, array $command, string $socket): int
    {
        $log = ['file', "$this->folder/$name.log", 'a'];
        $process = proc_open($command, [['file', '/dev/null', 'r'], $log, $log], $pipes);
        if ($process === false) {
            throw new \RuntimeException("$name does not start");
        }
        $this->running[$name] = $process;
        for ($end = microtime(true) + 20; ($there = @stream_socket_client("unix://$socket")) === false; usleep(10_000)) {
            if (microtime(true) > $end) {
                throw new \RuntimeException("$name does not listen: " . @file_get_contents("$this->folder/$name.log"));
            }
        }
        fclose($there);
        return proc_get_status($process)['pid'];
    }

    /** nginx in front of the sockets FOLDER/NAME.sock, at /NAME/. @param array<string, string> $scripts SCRIPT_FILENAME by name */
    public function nginx(array $scripts): int
    {
        $places = '';
        foreach ($scripts as $name => $script) {
            $places .= "location /$name/ { include $this->folder/params; fastcgi_param SCRIPT_FILENAME $script; fastcgi_pass unix:$this->folder/$name.sock; }\n";
        }
        $params = '';
        foreach (
            [
            'QUERY_STRING' => 'query_string', 'REQUEST_METHOD' => 'request_method', 'CONTENT_TYPE' => 'content_type', 'CONTENT_LENGTH' => 'content_length',
            'SCRIPT_NAME' => 'fastcgi_script_name', 'REQUEST_URI' => 'request_uri', 'DOCUMENT_URI' => 'document_uri', 'DOCUMENT_ROOT' => 'document_root',
            'SERVER_PROTOCOL' => 'server_protocol', 'REQUEST_SCHEME' => 'scheme', 'GATEWAY_INTERFACE' => 'CGI/1.1', 'SERVER_SOFTWARE' => 'nginx',
            'REMOTE_ADDR' => 'remote_addr', 'REMOTE_PORT' => 'remote_port', 'SERVER_ADDR' => 'server_addr', 'SERVER_PORT' => 'server_port',
            'SERVER_NAME' => 'server_name', 'REDIRECT_STATUS' => '200',
            ] as $name => $value
        ) {
            $params .= "fastcgi_param $name " . (preg_match('/^[a-z_]+$/', $value) === 1 && $value !== 'nginx' ? "\$$value" : $value) . ";\n";
        }
        file_put_contents("$this->folder/params", $params);
        $user = posix_geteuid() === 0 ? 'user root;' : '';
        file_put_contents("$this->folder/nginx.conf", <<<CONF
            $user daemon off; pid $this->folder/nginx.pid; error_log $this->folder/nginx.error warn; worker_processes 1;
            events { worker_connections 512; }
            http {
                access_log off; keepalive_requests 1000000;
                client_body_temp_path $this->folder/b; proxy_temp_path $this->folder/p; fastcgi_temp_path $this->folder/f;
                uwsgi_temp_path $this->folder/u; scgi_temp_path $this->folder/s;
                server { listen unix:$this->folder/http.sock; root $this->folder; $places }
            }
            CONF);
        return $this->start('nginx', ['nginx', '-e', "$this->folder/nginx.error", '-c', "$this->folder/nginx.conf"], "$this->folder/http.sock");
    }

    /** @param list<string> $options */
    public function pool(string $name, string $script, int $workers, array $options = []): int
    {
        $command = ["$this->root/target/release/fcgiguard", 'run', '--listen', "$this->folder/$name.sock", '--control', "$this->folder/$name.ctl",
            '--workers', (string) $workers, ...$options, '--', PHP_BINARY, '-d', 'opcache.enable_cli=1', '-d', 'display_errors=0', $script];
        return $this->start($name, $command, "$this->folder/$name.sock");
    }

    /** @param array<string, string> $ini of its php_admin_value */
    public function fpm(string $name, int $workers, array $ini = []): int
    {
        $values = implode('', array_map(static fn (string $key, string $value): string => "php_admin_value[$key] = $value\n", array_keys($ini), $ini));
        $fpm = max(glob('/usr/sbin/php-fpm*') ?: ['']);
        $user = posix_geteuid() === 0 ? "user = root\ngroup = root\n" : '';
        file_put_contents("$this->folder/$name.conf", "[global]\nerror_log = $this->folder/$name.log\ndaemonize = no\n[www]\n{$user}listen = $this->folder/$name.sock\npm = static\npm.max_children = $workers\n$values");
        return $this->start($name, [$fpm, '-F', '-R', '-d', 'opcache.enable=1', '-y', "$this->folder/$name.conf"], "$this->folder/$name.sock");
    }

    /** CPU seconds of a process and all below it, the ended ones too that were waited for. */
    public static function cpu(int $pid): float
    {
        $sum = 0;
        $children = [];
        foreach (glob('/proc/[0-9]*/stat') ?: [] as $file) {
            $text = @file_get_contents($file);
            if ($text !== false) {
                $fields = explode(' ', substr($text, (int) strrpos($text, ')') + 2));
                $children[(int) $fields[1]][] = (int) basename(dirname($file));
                $times[(int) basename(dirname($file))] = (int) $fields[11] + (int) $fields[12] + (int) $fields[13] + (int) $fields[14];
            }
        }
        for ($next = [$pid]; $next !== []; $next = array_merge(...array_map(static fn (int $p): array => $children[$p] ?? [], $next))) {
            foreach ($next as $each) {
                $sum += $times[$each] ?? 0;
            }
        }
        return $sum / 100;
    }

    /**
     * GETs over kept HTTP connections to nginx.
     *
     * @param callable(int): string $path of the n-th request
     * @param callable(int, string): bool $good whether the n-th body is right
     * @param array<int, callable> $at done when so many were answered
     * @return array{int, float, list<string>} good ones, seconds, the first bad answers
     */
    public function load(int $count, int $connections, callable $path, callable $good, array $at = []): array
    {
        [$sent, $done, $well, $bad] = [0, 0, 0, []];
        [$streams, $numbers, $buffers] = [[], [], []];
        $begin = microtime(true);
        for ($c = 0; $c < min($connections, $count); $c++) {
            $stream = stream_socket_client("unix://$this->folder/http.sock");
            if ($stream === false) {
                throw new \RuntimeException('nginx is gone');
            }
            stream_set_blocking($stream, false);
            $streams[$c] = $stream;
            [$numbers[$c], $buffers[$c]] = [$sent, ''];
            fwrite($stream, "GET {$path($sent++)} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        while ($done < $count) {
            [$read, $write, $except] = [$streams, null, null];
            if (!stream_select($read, $write, $except, 60)) {
                $bad[] = 'no answer within 60 s';
                break;
            }
            foreach ($read as $c => $stream) {
                $buffers[$c] .= $piece = (string) fread($stream, 1 << 16);
                $head = strpos($buffers[$c], "\r\n\r\n");
                $whole = $head !== false && (preg_match('/\r\nContent-Length: (\d+)/', $buffers[$c], $match) === 1
                    ? strlen($buffers[$c]) >= $head + 4 + $match[1] : substr($buffers[$c], -5) === "0\r\n\r\n");
                if (!$whole && ($piece !== '' || !feof($stream))) {
                    continue;
                }
                $done++;
                if (str_starts_with($buffers[$c], 'HTTP/1.1 200 ') && $good($numbers[$c], substr($buffers[$c], (int) $head + 4))) {
                    $well++;
                } elseif (count($bad) < 5) {
                    $bad[] = "request {$numbers[$c]}: " . substr($buffers[$c], 0, 300);
                }
                if (isset($at[$done])) {
                    $at[$done]();
                }
                if ($sent < $count) {
                    [$numbers[$c], $buffers[$c]] = [$sent, ''];
                    fwrite($stream, "GET {$path($sent++)} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                } else {
                    unset($streams[$c]);
                }
            }
        }
        return [$well, microtime(true) - $begin, $bad];
    }
}
