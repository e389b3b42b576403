<?php

declare(strict_types=1);

namespace FcgiGuard\Adapter;

/** Where a server listens; times in milliseconds. The read timeout is that of a whole request, connecting included. */
final class UnixDomainSocket
{
    public function __construct(private readonly string $path, private readonly int $connectTimeout = 5000, private readonly int $readWriteTimeout = 5000)
    {
    }

    public function getSocketAddress(): string
    {
        return "unix://$this->path";
    }

    public function getConnectTimeout(): int
    {
        return $this->connectTimeout;
    }

    public function getReadWriteTimeout(): int
    {
        return $this->readWriteTimeout;
    }
}
