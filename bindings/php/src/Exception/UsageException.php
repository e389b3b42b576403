<?php

declare(strict_types=1);

namespace FcgiGuard\Exception;

/** An argument, option or address is wrong. */
final class UsageException extends FcgiGuardException
{
}
