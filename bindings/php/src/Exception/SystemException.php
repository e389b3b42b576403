<?php

declare(strict_types=1);

namespace FcgiGuard\Exception;

/** A system call failed, or a deadline passed. */
final class SystemException extends FcgiGuardException
{
}
