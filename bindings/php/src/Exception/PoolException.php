<?php

declare(strict_types=1);

namespace FcgiGuard\Exception;

/** A pool's manager is not there (no_control), refused this user (control_denied), or gave a change up (reload_failed, start_failed). */
final class PoolException extends FcgiGuardException
{
}
