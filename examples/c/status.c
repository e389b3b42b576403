/* Asks a pool's control socket, which speaks FastCGI like any application: the status as JSON, or a command.
 *
 *   status CONTROL                    prints the status
 *   status CONTROL reload             replaces the workers and waits until it is done
 *   status CONTROL scale N            sets the number of workers
 *   status CONTROL stop               ends the pool after the requests in flight
 *
 * Exits with 0 when the manager did it, 1 when it refused, 2 when it did not answer, 3 for wrong use.
 */
#include <fcgiguard.h>
#include <stdio.h>
#include <string.h>

static int param(fcgiguard_client *client, const char *name, const char *value, fcgiguard_error *error)
{
    return fcgiguard_client_param(client, (const uint8_t *)name, strlen(name), (const uint8_t *)value, strlen(value), error);
}

int main(int argc, char **argv)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_client *client = fcgiguard_client_new();
    const char *command = argc > 2 ? argv[2] : "status.json";
    int scale = strcmp(command, "scale") == 0;
    char path[64], query[64] = "";
    const uint8_t *piece;
    size_t len;
    int32_t status = -1, kind = -1;

    if (argc < 2 || argc != (argc > 2 ? 3 + scale : 2) || strlen(command) > 32 || (scale && strlen(argv[3]) > 10)) {
        fprintf(stderr, "usage: status CONTROL [reload | scale N | stop]\n");
        fcgiguard_client_free(client);
        fcgiguard_error_free(error);
        return 3;
    }
    snprintf(path, sizeof path, "/%s", command);
    if (scale) snprintf(query, sizeof query, "workers=%s", argv[3]);
    else if (strcmp(command, "reload") == 0) snprintf(query, sizeof query, "wait=1");

    if (fcgiguard_client_set(client, "timeout", "60s", error) == 0 && fcgiguard_client_connect(client, argv[1], error) == 0 &&
        param(client, "REQUEST_METHOD", argc > 2 ? "POST" : "GET", error) == 0 && param(client, "SCRIPT_NAME", path, error) == 0 &&
        param(client, "QUERY_STRING", query, error) == 0 && fcgiguard_client_begin(client, error) == 0 &&
        fcgiguard_client_end(client, error) == 0 && (status = fcgiguard_client_head(client, error)) >= 0) {
        while ((kind = fcgiguard_client_read(client, &piece, &len, error)) > 0) {
            fwrite(piece, 1, len, status < 300 && kind == 1 ? stdout : stderr);
        }
    }
    if (kind < 0) fprintf(stderr, "status: %s: %s\n", argv[1], fcgiguard_error_message(error));
    fcgiguard_client_free(client);
    fcgiguard_error_free(error);
    return kind < 0 ? 2 : status >= 300;
}
