<?php

declare(strict_types=1);

namespace FcgiGuard\Exception;

/** A peer broke the FastCGI specification. */
final class ProtocolException extends FcgiGuardException
{
}
