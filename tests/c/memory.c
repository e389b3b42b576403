/* Memory ends: malloc has nothing left, not even 16 bytes. Calls are out_of_memory or go on, none aborts; then there is memory again.
 *
 * Not under valgrind and sanitizers, which have a malloc of their own and need their address space.
 */
#include "fcgiguard.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int checks, failures;
#define CHECK(what) do { checks++; if (!(what)) { failures++; printf("FAIL %s:%d: %s\n", __FILE__, __LINE__, #what); } } while (0)

static void *held; /* what was taken, each block the next one's address */
static struct rlimit before;

/* The stack grows under the same limit: its pages are had first. */
static void touch_stack(void)
{
    volatile char room[512 * 1024];
    size_t at;
    for (at = 0; at < sizeof room; at += 1024) room[at] = 1;
    (void)room[0];
}

static void memory_goes(void)
{
    static const size_t sizes[] = {1 << 20, 1 << 16, 1 << 12, 256, 64, 16};
    struct rlimit none;
    size_t at;
    void *block;

    touch_stack();
    getrlimit(RLIMIT_AS, &before);
    none = before;
    none.rlim_cur = 1 << 20;
    CHECK(setrlimit(RLIMIT_AS, &none) == 0);
    for (at = 0; at < sizeof sizes / sizeof *sizes; at++) {
        while ((block = malloc(sizes[at])) != NULL) {
            *(void **)block = held;
            held = block;
        }
    }
}

static void memory_comes(void)
{
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    while (held) {
        void *next = *(void **)held;
        free(held);
        held = next;
    }
}

static int is(int32_t code, const char *name)
{
    const char *found = fcgiguard_code_name(code);
    return found && strcmp(found, name) == 0;
}

/* Neither success nor failure for want of memory is a fault; anything else is. */
static int fine(int64_t result)
{
    return result >= 0 || is((int32_t)result, "out_of_memory");
}

static void handles(void)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_probe *probe = fcgiguard_probe_new();
    fcgiguard_pool *pool = fcgiguard_pool_new();
    fcgiguard_client *client = fcgiguard_client_new();
    fcgiguard_report *report = NULL;
    int n, refused = 0, pools = 0;
    int32_t result;

    CHECK(error && probe && pool && client);
    memory_goes();
    for (n = 0; n < 20000; n++) {
        result = fcgiguard_pool_set(pool, n < 100 ? "listen" : "log", "unix:/tmp/somewhere-with-a-name-of-some-length.sock", error);
        CHECK(fine(result));
        if (result < 0) refused++;
        result = fcgiguard_probe_run(probe, "unix:/nowhere/at-all", &report, error);
        CHECK(fine(result));
        if (result == 0) fcgiguard_report_free(report);
        CHECK(fine(fcgiguard_client_set(client, "timeout", "5s", error)));
    }
    CHECK(refused > 19000);
    CHECK(is(fcgiguard_error_code(error), "out_of_memory") && strstr(fcgiguard_error_message(error), "memory") != NULL);
    for (n = 0; n < 10000; n++) {
        fcgiguard_pool *another = fcgiguard_pool_new();
        fcgiguard_error *second = fcgiguard_error_new();
        if (another) pools++;
        fcgiguard_pool_free(another);
        fcgiguard_error_free(second);
        CHECK(fcgiguard_probe_new() == NULL);
    }
    CHECK(pools == 0);
    CHECK(fine(fcgiguard_pool_open(pool, error)));
    fcgiguard_client_free(client);
    memory_comes();

    client = fcgiguard_client_new();
    CHECK(client != NULL && fcgiguard_client_set(client, "timeout", "5s", error) == 0);
    CHECK(fcgiguard_probe_run(probe, "unix:/nowhere/at-all", &report, error) >= 0);
    CHECK(report && strcmp(fcgiguard_report_text(report, "verdict"), "no_socket") == 0);
    fcgiguard_report_free(report);
    fcgiguard_client_free(client);
    fcgiguard_pool_free(pool);
    fcgiguard_probe_free(probe);
    fcgiguard_error_free(error);
}

/* Requests until five were answered: 0. */
static int ask(const char *path)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_client *client = fcgiguard_client_new();
    const uint8_t *piece;
    size_t len;
    int tries, good = 0;

    fcgiguard_client_set(client, "timeout", "2s", error);
    for (tries = 0; tries < 1000 && good < 5; tries++) {
        if (fcgiguard_client_connect(client, path, error) == 0 &&
            fcgiguard_client_param(client, (const uint8_t *)"REQUEST_METHOD", 14, (const uint8_t *)"GET", 3, error) == 0 &&
            fcgiguard_client_begin(client, error) == 0 && fcgiguard_client_end(client, error) == 0 &&
            fcgiguard_client_read(client, &piece, &len, error) == 1) good++;
        poll(NULL, 0, 5);
    }
    fcgiguard_client_free(client);
    fcgiguard_error_free(error);
    return good == 5 ? 0 : 1;
}

/* A responder meets its requests while memory is out, and answers when there is some again. */
static void serves_again(void)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_responder *responder = fcgiguard_responder_new();
    fcgiguard_request *request;
    char folder[] = "/tmp/fcgiguard-memory-XXXXXX", path[64];
    int status = -1, n;
    pid_t child;

    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/a.sock", folder);
    CHECK(fcgiguard_responder_open(responder, path, error) == 0);
    child = fork();
    if (child == 0) {
        alarm(60);
        _exit(ask(path));
    }
    memory_goes();
    for (n = 0; n < 200; n++) {
        int32_t result;
        request = NULL;
        result = fcgiguard_responder_next(responder, &request, error);
        CHECK(fine(result));
        if (result == 1 && request) {
            CHECK(fine(fcgiguard_request_write(request, (const uint8_t *)"\r\nok", 4, error)));
            CHECK(fine(fcgiguard_request_finish(request, error)));
        }
        poll(NULL, 0, 1);
    }
    memory_comes();
    for (n = 0; n < 60000 && waitpid(child, &status, WNOHANG) == 0; n++) {
        request = NULL;
        if (fcgiguard_responder_next(responder, &request, error) == 1) {
            CHECK(fcgiguard_request_write(request, (const uint8_t *)"\r\nok", 4, error) == 4);
            CHECK(fcgiguard_request_finish(request, error) == 0);
        } else {
            poll(NULL, 0, 1);
        }
    }
    CHECK(status == 0);
    fcgiguard_responder_free(responder);
    fcgiguard_error_free(error);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    printf("memory: begins\n"); /* its buffer is had now */
    handles();
    serves_again();
    printf("memory: %d checks, %d failures\n", checks, failures);
    return failures != 0;
}
