<?php

declare(strict_types=1);

namespace FcgiGuard\Internal;

/**
 * multipart/form-data (RFC 7578) into what PHP's own parser makes of it: fields and uploaded files, within the limits of
 * php.ini. Fed in pieces; files go to disk as they come.
 *
 * @internal
 */
final class Multipart
{
    /** Bytes of a part's head, as in PHP's parser. */
    private const HEAD = 8192;

    /** Paths of the files written. @var list<string> */
    public array $paths = [];
    /** What was left out, one line each. @var list<string> */
    public array $notes = [];

    private string $buffer = "\r\n";
    private string $mark;
    /** preamble, head, body or end */
    private string $state = 'preamble';
    private int $parts = 0;
    private int $fileCount = 0;
    private string $fields = '';
    private string $files = '';
    private ?int $formLimit = null;

    private string $name = '';
    private string $value = '';
    private bool $keep = false;
    /** @var array{name: string, type: string, error: int, size: int, path: string, out: resource|null}|null */
    private ?array $file = null;

    private readonly int $maxParts;
    private readonly int $maxFiles;
    private readonly int $maxSize;

    public function __construct(string $boundary)
    {
        $this->mark = "\r\n--$boundary";
        $this->maxFiles = ini_get('file_uploads') ? (int) ini_get('max_file_uploads') : 0;
        $this->maxParts = (int) ini_get('max_input_vars') + (int) ini_get('max_file_uploads');
        $this->maxSize = Ini::bytes('upload_max_filesize');
    }

    /** The boundary that a Content-Type names; null if it is not multipart/form-data or names none. */
    public static function boundary(string $contentType): ?string
    {
        $found = preg_match('/^multipart\/form-data\s*[;,].*?boundary=(?:"([^"]{1,500})"|([^\s;,"]{1,500}))/is', $contentType, $match);
        return $found === 1 ? $match[2] ?? $match[1] : null;
    }

    public function feed(string $bytes): void
    {
        $this->buffer .= $bytes;
        while ($this->state !== 'end' && ($this->state === 'head' ? $this->head() : $this->content())) {
        }
        if ($this->state === 'end') {
            $this->buffer = '';
        }
    }

    /** The body is over. @return array{array<mixed>, array<mixed>} what $_POST and $_FILES are */
    public function finish(): array
    {
        if ($this->state === 'body') {
            if ($this->file !== null && $this->file['error'] === 0) {
                $this->file['error'] = UPLOAD_ERR_PARTIAL;
            }
            $this->file === null ? $this->take($this->buffer) : null;
            $this->close();
        }
        $post = $files = [];
        @parse_str($this->fields, $post);
        @parse_str($this->files, $files);
        foreach ($files as &$file) {
            foreach (['error', 'size'] as $number) {
                if (is_array($file) && is_array($file[$number] ?? null)) {
                    array_walk_recursive($file[$number], static function (mixed &$leaf): void {
                        $leaf = (int) $leaf;
                    });
                } elseif (is_array($file) && isset($file[$number])) {
                    $file[$number] = (int) $file[$number];
                }
            }
        }
        return [$post, $files];
    }

    /** Preamble or the body of a part, up to a boundary; false when more bytes are needed. */
    private function content(): bool
    {
        $at = strpos($this->buffer, $this->mark);
        if ($at === false) {
            $safe = strlen($this->buffer) - strlen($this->mark);
            if ($safe > 0) {
                $this->take(substr($this->buffer, 0, $safe));
                $this->buffer = substr($this->buffer, $safe);
            }
            return false;
        }
        $after = $at + strlen($this->mark);
        if (strlen($this->buffer) < $after + 2) {
            return false;
        }
        $this->take(substr($this->buffer, 0, $at));
        $this->close();
        $this->state = substr($this->buffer, $after, 2) === '--' ? 'end' : 'head';
        $this->buffer = substr($this->buffer, $after);
        return true;
    }

    private function head(): bool
    {
        $end = strpos($this->buffer, "\r\n\r\n");
        if ($end === false || $end > self::HEAD) {
            if (strlen($this->buffer) > self::HEAD) {
                $this->notes[] = 'multipart: the head of a part is longer than ' . self::HEAD . ' bytes; the rest is not read';
                $this->state = 'end';
            }
            return false;
        }
        $head = substr($this->buffer, 0, $end);
        $this->buffer = substr($this->buffer, $end + 4);
        $this->state = 'body';
        if (++$this->parts > $this->maxParts) {
            $this->notes[] = "multipart: more than $this->maxParts parts; the rest is not read";
            $this->state = 'end';
            return false;
        }
        $this->open($head);
        return true;
    }

    private function open(string $head): void
    {
        [$this->name, $this->value, $this->keep, $this->file] = ['', '', false, null];
        $fields = [];
        foreach (explode("\r\n", $head) as $line) {
            [$name, $value] = explode(':', $line, 2) + ['', ''];
            $fields[strtolower(trim($name))] = trim($value);
        }
        $disposition = $fields['content-disposition'] ?? '';
        $name = self::parameter($disposition, 'name');
        if (strncasecmp($disposition, 'form-data', 9) !== 0 || $name === null || $name === '') {
            return;
        }
        $this->name = $name;
        $given = self::parameter($disposition, 'filename');
        if ($given === null) {
            $this->keep = true;
            return;
        }
        if ($this->maxFiles === 0) {
            return;
        }
        if ($given !== '' && ++$this->fileCount > $this->maxFiles) {
            $this->notes[] = "multipart: more than max_file_uploads=$this->maxFiles files; \"$name\" is left out";
            return;
        }
        $this->keep = true;
        $this->file = ['name' => $given, 'type' => $fields['content-type'] ?? '', 'error' => UPLOAD_ERR_OK, 'size' => 0, 'path' => '', 'out' => null];
        if ($given === '') {
            $this->file['error'] = UPLOAD_ERR_NO_FILE;
            return;
        }
        $folder = (string) ini_get('upload_tmp_dir');
        $path = @tempnam($folder === '' ? sys_get_temp_dir() : $folder, 'php');
        $out = $path === false ? false : @fopen($path, 'wb');
        if ($path === false || $out === false) {
            $this->file['error'] = UPLOAD_ERR_NO_TMP_DIR;
            return;
        }
        $this->paths[] = $path;
        [$this->file['path'], $this->file['out']] = [$path, $out];
    }

    private static function parameter(string $line, string $name): ?string
    {
        if (preg_match('/;\s*' . $name . '\s*=\s*(?:"((?:[^"\\\\]|\\\\.)*)"|([^\s;]*))/is', $line, $match) !== 1) {
            return null;
        }
        // Browsers escape the quote; some send a Windows path with bare backslashes, which stay.
        return isset($match[2]) ? $match[2] : str_replace(['\\"', '\\\\'], ['"', '\\'], $match[1]);
    }

    private function take(string $bytes): void
    {
        if ($this->state !== 'body' || !$this->keep || $bytes === '') {
            return;
        }
        if ($this->file === null) {
            $this->value .= $bytes;
            return;
        }
        if ($this->file['error'] !== UPLOAD_ERR_OK || $this->file['out'] === null) {
            return;
        }
        $this->file['size'] += strlen($bytes);
        if ($this->maxSize > 0 && $this->file['size'] > $this->maxSize) {
            $this->file['error'] = UPLOAD_ERR_INI_SIZE;
        } elseif ($this->formLimit !== null && $this->file['size'] > $this->formLimit) {
            $this->file['error'] = UPLOAD_ERR_FORM_SIZE;
        } elseif (@fwrite($this->file['out'], $bytes) !== strlen($bytes)) {
            $this->file['error'] = UPLOAD_ERR_CANT_WRITE;
        }
    }

    private function close(): void
    {
        if ($this->state !== 'body' || !$this->keep) {
            return;
        }
        $this->keep = false;
        if ($this->file === null) {
            if ($this->name === 'MAX_FILE_SIZE') {
                $this->formLimit = max(0, (int) $this->value) ?: null;
            }
            $this->fields .= urlencode($this->name) . '=' . urlencode($this->value) . '&';
            return;
        }
        $file = $this->file;
        if ($file['out'] !== null && !fclose($file['out']) && $file['error'] === UPLOAD_ERR_OK) {
            $file['error'] = UPLOAD_ERR_CANT_WRITE;
        }
        if ($file['error'] !== UPLOAD_ERR_OK && $file['path'] !== '') {
            @unlink($file['path']);
            $file['path'] = '';
        }
        $failed = $file['error'] !== UPLOAD_ERR_OK;
        $slash = max((int) strrpos('/' . $file['name'], '/'), (int) strrpos('/' . $file['name'], '\\'));
        $values = [
            'name' => substr($file['name'], $slash),
            'full_path' => $file['name'],
            'type' => $failed ? '' : $file['type'],
            'tmp_name' => $file['path'],
            'error' => $file['error'],
            'size' => $failed ? 0 : $file['size'],
        ];
        // a[b] becomes a[name][b], a[tmp_name][b] and so on.
        $bracket = strpos($this->name, '[') ?: strlen($this->name);
        [$base, $rest] = [substr($this->name, 0, $bracket), substr($this->name, $bracket)];
        foreach ($values as $key => $value) {
            $this->files .= urlencode("{$base}[$key]$rest") . '=' . urlencode((string) $value) . '&';
        }
        $this->file = null;
    }
}
