<?php

declare(strict_types=1);

namespace FcgiGuard\Exception;

/** Nothing can be connected to, or the answer did not come: no_socket, refused, denied, backlog_full, connect_timeout, closed, unexpected. */
final class ConnectionException extends FcgiGuardException
{
}
