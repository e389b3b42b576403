/* Our hello in C: the work of libfcgi_hello.c, call by call. usage: ours_hello SOCKET [BYTES] */
#include <fcgiguard.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc < 2) return 3;
    int size = argc > 2 ? atoi(argv[2]) : 100;
    uint8_t *body = malloc((size_t)size + 1), sink[65536];
    memset(body, 'x', (size_t)size);
    const char *head = "Content-Type: text/plain\r\n\r\n";
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_responder *responder = fcgiguard_responder_new();
    fcgiguard_request *request = NULL;
    if (fcgiguard_responder_open(responder, argv[1], error) < 0) {
        fprintf(stderr, "%s\n", fcgiguard_error_message(error));
        return 2;
    }
    while (fcgiguard_responder_accept(responder, &request, error) == 1) {
        while (fcgiguard_request_read(request, sink, sizeof sink, error) > 0) {}
        fcgiguard_request_write(request, (const uint8_t *)head, strlen(head), error);
        fcgiguard_request_write(request, body, (size_t)size, error);
        fcgiguard_request_finish(request, error);
    }
    fcgiguard_responder_free(responder);
    fcgiguard_error_free(error);
    return 0;
}
