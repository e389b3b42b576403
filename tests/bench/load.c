/* Sends the same request COUNT times, on new connections, on one kept one, or on new ones of which sixteen wait
 * in the backlog at a time (busy), or on sixteen kept ones at a time (many), and prints what the server's process (all its threads) spent.
 * The request is what nginx sends for a GET (25 params).
 * usage: load SOCKET PID COUNT [new|keep|busy|many] [POST_BYTES] [SCRIPT_FILENAME] */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static char request[4 << 20], in[1 << 20];
static size_t size;

static void put(int type, const char *content, size_t len) {
    size_t pad = (8 - len % 8) % 8;
    char header[8] = {1, (char)type, 0, 1, (char)(len >> 8), (char)len, (char)pad, 0};
    memcpy(request + size, header, 8);
    memcpy(request + size + 8, content, len);
    size += 8 + len + pad;
}

/* Of every thread, those that ended included, in nanoseconds; /proc/PID/stat counts in ticks. */
static double cpu_us(const char *pid) {
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(atoi(pid), &clock) || clock_gettime(clock, &t)) perror("clock"), exit(2);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int open_to(const char *path) {
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strncpy(addr.sun_path, path, sizeof addr.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr)) perror("connect"), exit(2);
    return fd;
}

/* One answer: up to END, by the records' lengths. Returns the bytes of STDOUT. */
static size_t answer(int fd) {
    size_t have = 0, at = 0, stdout_bytes = 0;
    for (;;) {
        while (have - at >= 8) {
            unsigned char *r = (unsigned char *)in + at;
            size_t content = (size_t)r[4] * 256 + r[5], len = 8u + content + r[6];
            if (have - at < len) break;
            at += len;
            if (r[1] == 6) stdout_bytes += content;
            if (r[1] == 3) return stdout_bytes;
        }
        ssize_t n = read(fd, in + have, sizeof in - have);
        if (n <= 0) fprintf(stderr, "cut off\n"), exit(2);
        have += (size_t)n;
    }
}

int main(int argc, char **argv) {
    if (argc < 4) return 3;
    int count = atoi(argv[3]), many = argc > 4 && !strcmp(argv[4], "many"), keep = many || (argc > 4 && !strcmp(argv[4], "keep"));
    long post = argc > 5 ? atol(argv[5]) : 0;
    char begin[8] = {0, 1, (char)keep}, params[4096], length[32];
    put(1, begin, 8);
    snprintf(length, sizeof length, "%ld", post);
    const char *pairs[][2] = {{"QUERY_STRING", ""}, {"REQUEST_METHOD", post ? "POST" : "GET"}, {"CONTENT_TYPE", ""},
        {"CONTENT_LENGTH", post ? length : ""}, {"SCRIPT_NAME", "/hello"}, {"REQUEST_URI", "/hello"},
        {"DOCUMENT_URI", "/hello"}, {"DOCUMENT_ROOT", "/var/www/html"}, {"SERVER_PROTOCOL", "HTTP/1.1"},
        {"REQUEST_SCHEME", "http"}, {"GATEWAY_INTERFACE", "CGI/1.1"}, {"SERVER_SOFTWARE", "nginx/1.22.1"},
        {"REMOTE_ADDR", "127.0.0.1"}, {"REMOTE_PORT", "50000"}, {"SERVER_ADDR", "127.0.0.1"}, {"SERVER_PORT", "80"},
        {"SERVER_NAME", "localhost"}, {"REDIRECT_STATUS", "200"}, {"HTTP_HOST", "localhost"},
        {"HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0"},
        {"HTTP_ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
        {"HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.5"}, {"HTTP_ACCEPT_ENCODING", "gzip, deflate, br"},
        {"HTTP_CONNECTION", "keep-alive"}, {"HTTP_COOKIE", "session=0123456789abcdef0123456789abcdef"},
        {"SCRIPT_FILENAME", argc > 6 ? argv[6] : ""}};
    size_t used = 0, count_of = sizeof pairs / sizeof *pairs - (argc > 6 ? 0 : 1);
    for (size_t i = 0; i < count_of; i++) {
        size_t n = strlen(pairs[i][0]), v = strlen(pairs[i][1]);
        params[used++] = (char)n, params[used++] = (char)v;
        memcpy(params + used, pairs[i][0], n), memcpy(params + used + n, pairs[i][1], v);
        used += n + v;
    }
    put(4, params, used), put(4, "", 0);
    static char body[32768];
    for (long left = post; left > 0; left -= 32768) put(5, body, left < 32768 ? (size_t)left : 32768);
    put(5, "", 0);

    int fds[16], busy = argc > 4 && !strcmp(argv[4], "busy");
    int fd = keep && !many ? open_to(argv[1]) : -1;
    struct timeval patience = {5, 0};
    for (int j = 0; many && j < 16; j++) {
        fds[j] = open_to(argv[1]);
        setsockopt(fds[j], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    }
    size_t got = 0;
    double cpu = cpu_us(argv[2]);
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; many && i < count; i += 16) {
        for (int j = 0; j < 16; j++)
            if (send(fds[j], request, size, MSG_NOSIGNAL) != (ssize_t)size) perror("send"), exit(2);
        for (int j = 0; j < 16; j++) got = answer(fds[j]);
    }
    for (int i = 0; busy && i < count; i += 16) {
        for (int j = 0; j < 16; j++) {
            fds[j] = open_to(argv[1]);
            if (send(fds[j], request, size, MSG_NOSIGNAL) != (ssize_t)size) perror("send"), exit(2);
        }
        for (int j = 0; j < 16; j++) got = answer(fds[j]), close(fds[j]);
    }
    for (int i = 0; !busy && !many && i < count; i++) {
        if (!keep) fd = open_to(argv[1]);
        for (size_t at = 0; at < size;) {
            ssize_t n = send(fd, request + at, size - at, MSG_NOSIGNAL);
            if (n <= 0) perror("send"), exit(2);
            at += (size_t)n;
        }
        got = answer(fd);
        if (!keep) close(fd);
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    double wall = (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
    usleep(20000);
    printf("%8.2f us cpu %8.2f us wall per request, %zu bytes each\n", (cpu_us(argv[2]) - cpu) / count, wall / count, got);
    return 0;
}
