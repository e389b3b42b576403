<?php

declare(strict_types=1);

namespace FcgiGuard;

/**
 * Checks whether a FastCGI server is alive, busy or dead.
 *
 *     $result = Probe::check('unix:/run/php/php-fpm.sock', timeout: '5s');
 *     echo $result->line;
 */
final class Probe
{
    /**
     * @param string $address unix:/path, /path, host:port, :port or [v6]:port
     * @param string $timeout one deadline for the whole probe: 250ms, 5s, 2m; a bare number is seconds
     * @param string $method auto, get-values or request
     * @param array<string, string> $params CGI parameters of the request
     * @param string|null $script file that php-fpm is to run (SCRIPT_FILENAME)
     * @param int|null $expectStatus status that the answer must have
     * @param string|null $expectHeader "Name: value" that the answer must have
     * @param string|null $expectBody text that the answer's body must contain
     *
     * @throws Exception\UsageException when the address or an option is wrong; a dead server is a result, not an exception
     */
    public static function check(
        string $address,
        string $timeout = '5s',
        string $method = 'auto',
        array $params = [],
        ?string $script = null,
        ?int $expectStatus = null,
        ?string $expectHeader = null,
        ?string $expectBody = null,
    ): ProbeResult {
        $ffi = Library::load();
        $probe = $ffi->fcgiguard_probe_new();
        $report = $ffi->new('fcgiguard_report *');
        try {
            $options = [['timeout', $timeout], ['method', $method]];
            foreach ($params as $name => $value) {
                $options[] = ['param', "$name=$value"];
            }
            $optional = ['script' => $script, 'expect_status' => $expectStatus, 'expect_header' => $expectHeader, 'expect_body' => $expectBody];
            foreach ($optional as $name => $value) {
                if ($value !== null) {
                    $options[] = [$name, (string) $value];
                }
            }
            foreach ($options as [$name, $value]) {
                Library::call(static fn ($error) => $ffi->fcgiguard_probe_set($probe, $name, $value, $error));
            }
            Library::call(static fn ($error) => $ffi->fcgiguard_probe_run($probe, $address, \FFI::addr($report), $error));
            return ProbeResult::fromJson(
                $ffi->fcgiguard_report_text($report, 'json'),
                $ffi->fcgiguard_report_text($report, 'line'),
            );
        } finally {
            $ffi->fcgiguard_report_free($report);
            $ffi->fcgiguard_probe_free($probe);
        }
    }
}
