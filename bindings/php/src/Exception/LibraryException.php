<?php

declare(strict_types=1);

namespace FcgiGuard\Exception;

/** libfcgiguard cannot be loaded; the message says why and what to do. */
final class LibraryException extends FcgiGuardException
{
}
