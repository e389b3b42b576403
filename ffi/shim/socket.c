/* FCGX_OpenSocket: a listening socket from ":port", "host:port" or a path. */
#include "../../include/fcgiguard_fcgiapp.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int fail(int fd)
{
    int why = errno;

    if (fd >= 0) close(fd);
    errno = why;
    return -1;
}

static int open_unix(const char *path, int backlog)
{
    struct sockaddr_un address;
    int fd, other, stale;

    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        if (errno != EADDRINUSE) return fail(fd);
        /* Left by a program that is gone, or in use? */
        other = socket(AF_UNIX, SOCK_STREAM, 0);
        stale = other >= 0 && connect(other, (struct sockaddr *)&address, sizeof address) != 0 && errno == ECONNREFUSED;
        if (other >= 0) close(other);
        errno = EADDRINUSE;
        if (!stale || unlink(path) != 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0) return fail(fd);
    }
    return listen(fd, backlog) == 0 ? fd : fail(fd);
}

static int open_tcp(const char *host, const char *port, int backlog)
{
    struct addrinfo hints, *found, *at;
    int fd = -1, on = 1;

    memset(&hints, 0, sizeof hints);
    /* As libfcgi: without a host, IPv4's any. */
    hints.ai_family = host ? AF_UNSPEC : AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    for (at = found; at; at = at->ai_next) {
        fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
        if (fd < 0) continue;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, backlog) == 0) break;
        fail(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

int FCGX_OpenSocket(const char *path, int backlog)
{
    const char *colon = path ? strrchr(path, ':') : NULL;
    char *end = NULL, *host;
    long port;
    int fd;

    if (!path || !*path) {
        errno = EINVAL;
        return -1;
    }
    port = colon && !strchr(path, '/') ? strtol(colon + 1, &end, 10) : 0;
    if (port <= 0 || port > 65535 || !end || *end) return open_unix(path, backlog);
    if (colon == path) return open_tcp(NULL, colon + 1, backlog);
    host = strdup(path);
    if (!host) return -1;
    host[colon - path] = '\0';
    fd = open_tcp(host, colon + 1, backlog);
    free(host);
    return fd;
}
