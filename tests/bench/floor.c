/* The floor: the least a FastCGI application can do. Reads once, sends canned bytes, closes. It parses nothing.
 * usage: floor SOCKET [BYTES] */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 2) return 3;
    size_t body = argc > 2 ? (size_t)atoi(argv[2]) : 100, head = 28, used = 0;
    static char in[65536], out[70000];
    size_t content = head + body, pad = (8 - content % 8) % 8;
    if (content > 65000) return 3;
    char header[8] = {1, 6, 0, 1, (char)(content >> 8), (char)content, (char)pad, 0};
    memcpy(out, header, 8);
    memcpy(out + 8, "Content-Type: text/plain\r\n\r\n", head);
    memset(out + 8 + head, 'x', body);
    used = 8 + content + pad;
    memcpy(out + used, "\1\6\0\1\0\0\0\0" "\1\3\0\1\0\10\0\0\0\0\0\0\0\0\0\0", 24);
    used += 24;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strncpy(addr.sun_path, argv[1], sizeof addr.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&addr, sizeof addr) || listen(listener, 128)) return perror("listen"), 2;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) continue;
        if (recv(fd, in, sizeof in, 0) > 0) (void)!send(fd, out, used, MSG_NOSIGNAL);
        close(fd);
    }
}
