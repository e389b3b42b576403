/* The suite's application on libfcgiguard. QUERY_STRING says what it does beside: early (4 MiB before reading), err, status,
 * slow. usage: ours SOCKET */
#include <fcgiguard.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static fcgiguard_error *error;
static fcgiguard_request *request;

static void text(const char *s, size_t len) { fcgiguard_request_write(request, (const uint8_t *)s, len, error); }

static size_t param(const char *name, const uint8_t **value) {
    size_t len = 0;
    *value = NULL;
    fcgiguard_request_param(request, name, value, &len, error);
    return len;
}

static int asked(const char *what) {
    const uint8_t *query;
    size_t len = param("QUERY_STRING", &query);
    return len == strlen(what) && !memcmp(query, what, len);
}

int main(int argc, char **argv) {
    if (argc < 2) return 3;
    error = fcgiguard_error_new();
    fcgiguard_responder *responder = fcgiguard_responder_new();
    if (fcgiguard_responder_open(responder, argv[1], error) < 0) {
        fprintf(stderr, "%s\n", fcgiguard_error_message(error));
        return 2;
    }
    static uint8_t buffer[65536];
    while (fcgiguard_responder_accept(responder, &request, error) == 1) {
        static const char *roles[] = {"?", "RESPONDER", "AUTHORIZER", "FILTER"};
        long long len = 0, data = 0, n;
        int role = fcgiguard_request_role(request);
        const uint8_t *x, *proxy;
        text("Content-Type: text/plain\r\n\r\n", 28);
        if (asked("early")) {
            memset(buffer, 'x', sizeof buffer);
            for (int i = 0; i < 64; i++) text((const char *)buffer, sizeof buffer);
        }
        if (asked("slow")) nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
        if (asked("err")) fcgiguard_request_write_error(request, (const uint8_t *)"oops\n", 5, error);
        if (asked("status")) fcgiguard_request_set_app_status(request, 3, error);
        while ((n = fcgiguard_request_read(request, buffer, sizeof buffer, error)) > 0) len += n;
        while ((n = fcgiguard_request_read_data(request, buffer, sizeof buffer, error)) > 0) data += n;
        char line[256];
        size_t x_len = param("X", &x), proxy_len = param("HTTP_PROXY", &proxy);
        int used = snprintf(line, sizeof line, "len=%lld data=%lld role=%s proxy=%zu x=", len, data,
                            roles[role >= 0 && role < 4 ? role : 0], proxy_len);
        text(line, (size_t)used);
        for (size_t i = 0; i < x_len && i < 64; i++) text(line, (size_t)snprintf(line, sizeof line, "%02x", x[i]));
        text("\n", 1);
        fcgiguard_request_finish(request, error);
    }
    fcgiguard_responder_free(responder);
    return 0;
}
