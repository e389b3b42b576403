/* The floor: the least a FastCGI application can do. Reads until the empty STDIN record, sends canned bytes, closes unless
 * KEEP_CONN is set. It parses nothing else: it knows where the flag stands, and that a request ends with that record.
 * usage: floor SOCKET [BYTES] */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char in[65536];

/* One request; whether the connection stays. Less than 0: gone. */
static int take(int fd) {
    int keep = -1;
    static const char last[8] = {1, 5, 0, 1};
    char tail[8] = {0};
    for (;;) {
        ssize_t n = recv(fd, in, sizeof in, 0);
        if (n <= 0) return -1;
        if (keep < 0 && n > 10) keep = in[10] & 1;
        if (n >= 8) {
            memcpy(tail, in + n - 8, 8);
        } else {
            memmove(tail, tail + n, 8 - (size_t)n);
            memcpy(tail + 8 - n, in, (size_t)n);
        }
        if (!memcmp(tail, last, 8)) return keep;
    }
}

int main(int argc, char **argv) {
    if (argc < 2) return 3;
    size_t left = (size_t)(argc > 2 ? atoi(argv[2]) : 100), used = 0;
    const char *head = "Content-Type: text/plain\r\n\r\n";
    char *out = calloc(1, left * 2 + 4096);
    for (int first = 1; left; first = 0) {
        size_t lead = first ? strlen(head) : 0, body = left < 65500 - lead ? left : 65500 - lead;
        size_t content = lead + body, pad = (8 - content % 8) % 8;
        char header[8] = {1, 6, 0, 1, (char)(content >> 8), (char)content, (char)pad, 0};
        memcpy(out + used, header, 8);
        memcpy(out + used + 8, head, lead);
        memset(out + used + 8 + lead, 'x', body);
        used += 8 + content + pad;
        left -= body;
    }
    memcpy(out + used, "\1\6\0\1\0\0\0\0" "\1\3\0\1\0\10\0\0\0\0\0\0\0\0\0\0", 24);
    used += 24;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strncpy(addr.sun_path, argv[1], sizeof addr.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&addr, sizeof addr) || listen(listener, 128)) return perror("listen"), 2;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) continue;
        int keep;
        while ((keep = take(fd)) >= 0) {
            size_t at = 0;
            while (at < used) {
                ssize_t n = send(fd, out + at, used - at, MSG_NOSIGNAL);
                if (n <= 0) break;
                at += (size_t)n;
            }
            if (!keep) break;
        }
        close(fd);
    }
}
