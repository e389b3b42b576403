/* The matrix's worker in C, on libfcgiguard, or with -DLIBFCGI on libfcgi: one program, two libraries beneath it.
 * What it answers is selected by the query string; workers.py has the list. */
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 65521
static unsigned char block[BLOCK];

#ifdef LIBFCGI
#include <fcgiapp.h>
static FCGX_Request request;
static long in(void *into, size_t len) { return FCGX_GetStr(into, (int)len, request.in); }
static void out(const void *data, size_t len) { FCGX_PutStr(data, (int)len, request.out); }
static void err(const char *text, size_t len) { FCGX_PutStr(text, (int)len, request.err); }
static void flush(void) { FCGX_FFlush(request.out); }
static int more(void) { FCGX_Finish_r(&request); return FCGX_Accept_r(&request) == 0; }
static int start(void) { return FCGX_Init() == 0 && FCGX_InitRequest(&request, 0, 0) == 0; }
static void param(const char *name, char *into, size_t room)
{
    const char *value = FCGX_GetParam(name, request.envp);
    snprintf(into, room, "%s", value ? value : "");
}
static void params(void)
{
    for (char **p = request.envp; *p; p++) {
        out(*p, strlen(*p));
        out("\n", 1);
    }
}
#else
#include <fcgiguard.h>
static fcgiguard_responder *responder;
static fcgiguard_request *request;
static long in(void *into, size_t len) { return (long)fcgiguard_request_read(request, into, len, NULL); }
static void out(const void *data, size_t len) { fcgiguard_request_write(request, data, len, NULL); }
static void err(const char *text, size_t len) { fcgiguard_request_write_error(request, (const uint8_t *)text, len, NULL); }
static void flush(void) { fcgiguard_request_flush(request, NULL); }
static int more(void) { return fcgiguard_responder_accept(responder, &request, NULL) == 1; }
static int start(void)
{
    responder = fcgiguard_responder_new();
    return fcgiguard_responder_open(responder, NULL, NULL) >= 0;
}
static void param(const char *name, char *into, size_t room)
{
    const uint8_t *value = NULL;
    size_t len = 0;
    if (fcgiguard_request_param(request, name, &value, &len, NULL) != 1) len = 0;
    snprintf(into, room, "%.*s", (int)len, len ? (const char *)value : "");
}
static void params(void)
{
    const uint8_t *name, *value;
    size_t name_len, value_len;
    for (size_t i = 0; fcgiguard_request_param_at(request, i, &name, &name_len, &value, &value_len, NULL) == 1; i++) {
        out(name, name_len);
        out("=", 1);
        out(value, value_len);
        out("\n", 1);
    }
}
#endif

static uint32_t crc(uint32_t sum, const unsigned char *data, size_t len)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
            table[i] = c;
        }
    sum = ~sum;
    while (len--) sum = table[(sum ^ *data++) & 255] ^ (sum >> 8);
    return ~sum;
}

static void say(const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    out(text, strlen(text));
}

static void pattern(long from, long len)
{
    while (len > 0) {
        long at = from % BLOCK, piece = BLOCK - at < len ? BLOCK - at : len;
        out(block + at, (size_t)piece);
        from += piece;
        len -= piece;
    }
}

/* The value of NAME= in the query, "" without it. */
static const char *arg(const char *query, const char *name)
{
    static char value[128];
    size_t len = strlen(name);
    value[0] = 0;
    for (const char *p = query; p; p = strchr(p, '&') ? strchr(p, '&') + 1 : NULL)
        if (!strncmp(p, name, len) && p[len] == '=') {
            snprintf(value, sizeof value, "%s", p + len + 1);
            value[strcspn(value, "&")] = 0;
            break;
        }
    return value;
}

static void head(const char *extra)
{
    say("Content-Type: application/octet-stream\r\nX-Worker: %ld\r\n%s\r\n", (long)getpid(), extra);
}

static void answer(void)
{
    static char query[16384];
    static unsigned char body[65536];
    char what[32], extra[64];
    long n, got, ms;

    param("QUERY_STRING", query, sizeof query);
    snprintf(what, sizeof what, "%s", arg(query, "do"));
    n = atol(arg(query, "n"));
    ms = atol(arg(query, "ms"));
    if (!strcmp(what, "env")) {
        head("");
        params();
    } else if (!strcmp(what, "echo")) {
        head("");
        while ((got = in(body, sizeof body)) > 0) out(body, (size_t)got);
    } else if (!strcmp(what, "sum")) {
        uint32_t sum = 0;
        long whole = 0;
        while ((got = in(body, sizeof body)) > 0) {
            sum = crc(sum, body, (size_t)got);
            whole += got;
        }
        head("");
        say("%ld %08x\n", whole, sum);
    } else if (!strcmp(what, "big")) {
        head("");
        pattern(0, n);
    } else if (!strcmp(what, "fixed")) {
        snprintf(extra, sizeof extra, "Content-Length: %ld\r\n", n);
        head(extra);
        pattern(0, n);
    } else if (!strcmp(what, "slow")) {
        head("");
        for (long i = 0; i < 4; i++) {
            pattern(i * (n / 4), n / 4);
            flush();
            usleep(1000u * (unsigned)ms);
        }
    } else if (!strcmp(what, "late")) {
        usleep(1000u * (unsigned)ms);
        head("");
        say("late\n");
    } else if (!strcmp(what, "empty")) {
        head("");
    } else if (!strcmp(what, "status")) {
        head("Status: 404 Not Found\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n");
        say("not here\n");
    } else if (!strcmp(what, "headers")) {
        for (long i = 0; i < n; i++) say("X-H-%ld: value-%ld\r\n", i, i);
        head("");
        say("headers\n");
    } else if (!strcmp(what, "stderr")) {
        char line[160];
        /* One call, one record: web servers log each on a line of its own. */
        err(line, (size_t)snprintf(line, sizeof line, "stderr:%s\n", arg(query, "mark")));
        head("");
        say("said\n");
    } else if (!strcmp(what, "die")) {
        snprintf(what, sizeof what, "%s", arg(query, "when"));
        if (strcmp(what, "before")) {
            head(strcmp(what, "length") ? "" : "Content-Length: 400000\r\n");
            pattern(0, 100000);
            flush();
            usleep(100000);
        }
        kill(getpid(), SIGKILL);
    } else {
        head("");
        say("what?\n");
    }
}

int main(void)
{
    for (long i = 0; i < BLOCK; i++) block[i] = (unsigned char)(i * 31 + (i >> 8) * 17);
    if (!start()) return 1;
    while (more()) answer();
    return 0;
}
