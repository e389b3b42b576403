/* A FastCGI application in C: says hello, and how long the body was.
 *
 *   respond [ADDRESS]      without an address: descriptor 0, as under `fcgiguard run` or spawn-fcgi
 */
#include <fcgiguard.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failed(const char *what, fcgiguard_error *error)
{
    fprintf(stderr, "respond: %s: %s\n", what, fcgiguard_error_message(error));
    return 1;
}

int main(int argc, char **argv)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_responder *responder = fcgiguard_responder_new();
    fcgiguard_request *request = NULL;
    long served = 0, limit = getenv("RESPOND_LIMIT") ? atol(getenv("RESPOND_LIMIT")) : -1;
    int32_t more = 0;
    int status = 0;

    if (fcgiguard_responder_open(responder, argc > 1 ? argv[1] : NULL, error) < 0) {
        status = failed("cannot listen", error);
    } else {
        while (served != limit && (more = fcgiguard_responder_accept(responder, &request, error)) == 1) {
            const uint8_t *value = NULL;
            size_t len = 0;
            uint8_t buffer[4096];
            long body = 0;
            int64_t count;
            char head[256];

            while ((count = fcgiguard_request_read(request, buffer, sizeof buffer, error)) > 0) body += (long)count;
            fcgiguard_request_param(request, "REQUEST_METHOD", &value, &len, error);
            snprintf(head, sizeof head, "Content-Type: text/plain\r\nX-Worker-Pid: %ld\r\n\r\nhello: %.*s, %ld bytes\n",
                     (long)getpid(), (int)len, len ? (const char *)value : "", body);
            fcgiguard_request_write(request, (const uint8_t *)head, strlen(head), error);
            fcgiguard_request_finish(request, error);
            served++;
        }
        if (more < 0) status = failed("accept", error);
    }
    fcgiguard_responder_free(responder);
    fcgiguard_error_free(error);
    return status;
}
