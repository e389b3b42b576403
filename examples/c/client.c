/* Sends one request to a FastCGI application, as a web server would: params from the arguments, the body from standard
 * input where asked for, the answer (with its CGI head) to standard output.
 *
 *   client [-k TIMES] [-t TIMEOUT] [-i] ADDRESS [NAME=VALUE]...
 *
 *   -i        send standard input as the body; CONTENT_LENGTH is up to the caller
 *   -k TIMES  the same request that often, over one kept connection
 *
 * Exits with 0 when each answer ended with status 0, 1 when one did not, 2 when one did not end, 3 for wrong use.
 */
#include <fcgiguard.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static fcgiguard_client *client;
static fcgiguard_error *error;

static int param(const char *name, size_t name_len, const char *value)
{
    return fcgiguard_client_param(client, (const uint8_t *)name, name_len, (const uint8_t *)value, strlen(value), error);
}

/* Copies a piece of the answer: its kind, 0 at the end, or an error. */
static int copy_piece(void)
{
    const uint8_t *piece;
    size_t len;
    int kind = fcgiguard_client_read(client, &piece, &len, error);

    if (kind > 0) fwrite(piece, 1, len, kind == 1 ? stdout : stderr);
    return kind;
}

static int send_body(void)
{
    uint8_t buffer[65536];
    size_t got, at;
    int64_t taken;

    while ((got = fread(buffer, 1, sizeof buffer, stdin)) > 0) {
        for (at = 0; at < got; at += (size_t)taken) {
            taken = fcgiguard_client_write(client, buffer + at, got - at, error);
            /* An application that answers while it reads: once enough of that waits, it has to be read. */
            if (taken < 0 && strcmp(fcgiguard_code_name((int32_t)taken), "limit_exceeded") == 0) {
                taken = 0;
                if (copy_piece() <= 0) return -1;
            } else if (taken < 0) {
                return -1;
            }
        }
    }
    return 0;
}

/* 0 or 1: how the answer ended; -1: it did not. */
static int request(int argc, char **argv, int body)
{
    int at, kind;

    if (param("REQUEST_METHOD", 14, body ? "POST" : "GET") < 0) return -1;
    for (at = 0; at < argc; at++) {
        const char *equals = strchr(argv[at], '=');
        if (param(argv[at], (size_t)(equals - argv[at]), equals + 1) < 0) return -1;
    }
    if (fcgiguard_client_begin(client, error) < 0 || (body && send_body() < 0) || fcgiguard_client_end(client, error) < 0) return -1;
    while ((kind = copy_piece()) > 0) continue;
    if (kind < 0) return -1;
    return fcgiguard_client_app_status(client) != 0 || fcgiguard_client_protocol_status(client) != 0;
}

int main(int argc, char **argv)
{
    int at, times = 1, body = 0, status = 0;
    const char *timeout = "30s", *address;

    for (at = 1; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "-i") == 0) body = 1;
        else if (strcmp(argv[at], "-k") == 0 && at + 1 < argc) times = atoi(argv[++at]);
        else if (strcmp(argv[at], "-t") == 0 && at + 1 < argc) timeout = argv[++at];
        else break;
    }
    address = at < argc ? argv[at++] : NULL;
    if (address == NULL || address[0] == '-') status = 3;
    argc -= at;
    argv += at;
    for (at = 0; at < argc; at++) {
        if (strchr(argv[at], '=') == NULL) status = 3;
    }
    if (status == 3) {
        fprintf(stderr, "usage: client [-k TIMES] [-t TIMEOUT] [-i] ADDRESS [NAME=VALUE]...\n");
        return status;
    }
    client = fcgiguard_client_new();
    error = fcgiguard_error_new();
    if (fcgiguard_client_set(client, "timeout", timeout, error) < 0 ||
        (times > 1 && fcgiguard_client_set(client, "keep_conn", "1", error) < 0)) {
        status = 3;
    } else if (fcgiguard_client_connect(client, address, error) < 0) {
        status = 2;
    }
    while (status < 2 && times-- > 0) {
        int ended = request(argc, argv, body);
        status = ended < 0 ? 2 : (status | ended);
    }
    if (status >= 2) fprintf(stderr, "client: %s\n", fcgiguard_error_message(error));
    fcgiguard_client_free(client);
    fcgiguard_error_free(error);
    return status;
}
