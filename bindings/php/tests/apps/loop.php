<?php

declare(strict_types=1);

// A worker in the form of a loop, that does as its query says.

use FcgiGuard\Worker;

require __DIR__ . '/../../autoload.php';

$worker = new Worker($argv[1] ?? null);
$served = 0;
while ($request = $worker->accept()) {
    $served++;
    switch ($_GET['do'] ?? '') {
        case 'echo':
            header('Content-Type: application/json');
            echo json_encode([
                'server' => array_map('bin2hex', $_SERVER),
                'get' => $_GET,
                'post' => $_POST,
                'files' => $_FILES,
                'cookie' => $_COOKIE,
                'request' => $_REQUEST,
                'input' => strlen($request->input()) . ' ' . md5($request->input()),
                'uploads' => array_map(static fn (array $file): mixed => is_string($file['tmp_name']) && $file['tmp_name'] !== '' ? md5_file($file['tmp_name']) : null, $_FILES),
            ]);
            break;
        case 'headers':
            header('X-Captured: yes');
            header('X-Two: one');
            header('X-Two: two', false);
            header('X-Gone: here');
            header_remove('X-Gone');
            setcookie('name', 'value', ['httponly' => true]);
            http_response_code(404);
            $request->header('X-Own', 'own')->header('x-captured', 'won over');
            echo json_encode([headers_list(), $worker->capturesHeaders()]);
            break;
        case 'redirect':
            header('Location: /elsewhere');
            break;
        case 'session':
            session_save_path($_SERVER['SESSIONS']);
            session_start();
            $_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
            echo session_id(), ' ', $_SESSION['count'];
            break;
        case 'body':
            $lines = 0;
            while (fgets($request->body) !== false) {
                $lines++;
            }
            rewind($request->body);
            echo $lines, ' ', strlen($request->input()), ' ', strlen((string) stream_get_contents($request->body));
            break;
        case 'stream':
            $bytes = 0;
            while (($piece = $request->read()) !== '') {
                $bytes += strlen($piece);
            }
            echo $bytes;
            break;
        case 'big':
            for ($n = 0; $n < $_GET['megabytes']; $n++) {
                echo str_repeat(chr(65 + $n % 26), 1 << 20);
            }
            break;
        case 'parts':
            echo 'one ';
            $request->write('two ');
            echo 'three ';
            flush();
            ob_flush();
            ob_start();
            echo 'four';
            // Left open: the worker closes it.
            break;
        case 'move':
            $to = $_SERVER['TARGET'];
            echo json_encode([$request->moveUploadedFile('/etc/passwd', $to), $request->moveUploadedFile($_FILES['f']['tmp_name'], $to)]);
            break;
        case 'finish':
            echo 'early';
            $request->finish();
            file_put_contents($_SERVER['TARGET'], 'done after the answer');
            break;
        case 'sendfile':
            $request->sendFile($_SERVER['TARGET'], 2, 3);
            break;
        case 'late':
            echo 'x';
            $request->flush();
            try {
                $request->header('X-Late', 'x');
            } catch (FcgiGuard\Exception\UsageException $error) {
                echo $error->name;
            }
            break;
        case 'inject':
            try {
                $request->header('X-Bad', "a\r\nb: c");
            } catch (FcgiGuard\Exception\UsageException $error) {
                echo $error->name;
            }
            break;
        case 'close-buffer':
            while (ob_get_level() > 0) {
                ob_end_clean();
            }
            break;
        case 'throw':
            echo 'thrown away';
            throw new RuntimeException('out of the loop');
        case 'exit':
            echo 'bye';
            exit(7);
        case 'memory':
            ini_set('memory_limit', '32M');
            str_repeat('x', 1 << 30);
            // no break: never reached
        case 'memory_get_usage':
            echo memory_get_usage();
            break;
        default:
            echo getmypid(), ' ', $served;
    }
}
