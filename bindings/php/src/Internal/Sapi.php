<?php

declare(strict_types=1);

namespace FcgiGuard\Internal;

use FFI;

/**
 * What PHP's command line SAPI lacks for serving requests: header() collects nothing there, and SIGTERM ends the process
 * in the middle of a request. Both are changed from inside, through FFI, and only where that was seen to work.
 *
 * @internal
 */
final class Sapi
{
    /** The head of sapi_module_struct up to the field that is written, the same since PHP 5.3. */
    private const MODULE = 'typedef struct { char *name; char *pretty_name; void *startup; void *shutdown; void *activate;
        void *deactivate; void *ub_write; void *flush; void *get_stat; void *getenv; void *sapi_error; void *header_handler;
        } fcgiguard_sapi; extern fcgiguard_sapi sapi_module;';

    /** Makes header() collect; true if it does now. */
    public static function captureHeaders(): bool
    {
        if (headers_sent()) {
            return false;
        }
        if (self::collects()) {
            return true;
        }
        // The CLI's own header handler drops each field; without one, PHP keeps them. Other SAPIs send theirs themselves.
        // Later versions are left alone until the struct was looked at.
        if (PHP_SAPI !== 'cli' || PHP_VERSION_ID >= 80600 || PHP_ZTS) {
            return false;
        }
        try {
            // Kept in a variable: the struct's type goes with it.
            $php = FFI::cdef(self::MODULE);
            /** @var FFI\CData $module */
            $module = $php->sapi_module;
            if (FFI::string($module->name) !== 'cli' || FFI::string($module->pretty_name) !== 'Command Line Interface') {
                return false;
            }
            $module->header_handler = null;
        } catch (FFI\Exception) {
            return false; // a PHP that does not export it
        }
        return self::collects();
    }

    private static function collects(): bool
    {
        header('X-Fcgiguard-Seen: 1');
        $seen = in_array('X-Fcgiguard-Seen: 1', headers_list(), true);
        header_remove('X-Fcgiguard-Seen');
        return $seen;
    }

    /** SIGTERM and SIGINT let the responder leave after the request in hand. Not a PHP callback: the library's own function. */
    public static function leaveOnSignals(FFI $library): void
    {
        try {
            $libc = FFI::cdef('void *signal(int signo, void *handler); int siginterrupt(int signo, int flag);');
            foreach ([15, 2] as $signo) {
                $libc->signal($signo, $libc->cast('void *', $library->fcgiguard_responder_leave_all));
                $libc->siginterrupt($signo, 1);
            }
        } catch (FFI\Exception) {
            // Then a signal ends the process at once, as PHP does by itself.
        }
    }
}
