/* Wrong use is a code and a message, never a crash. What holds for every function and every kind of handle is in border.c. */
#include <fcgiguard.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static int passed, failed;

static void check(int ok, const char *what, int line)
{
    if (ok) {
        passed++;
    } else {
        failed++;
        printf("line %d: %s\n", line, what);
    }
}

#define CHECK(condition) check((condition), #condition, __LINE__)

static int is(int32_t code, const char *name)
{
    const char *found = fcgiguard_code_name(code);
    return found && strcmp(found, name) == 0;
}

/* A request of a client in this process: 1, or 0. */
static int ask(fcgiguard_client *client, const char *path, fcgiguard_error *error)
{
    return fcgiguard_client_connect(client, path, error) == 0 &&
           fcgiguard_client_param(client, (const uint8_t *)"A", 1, (const uint8_t *)"b", 1, error) == 0 &&
           fcgiguard_client_begin(client, error) == 0 && fcgiguard_client_end(client, error) == 0;
}

/* A request that is over, in each way that it can be; and a responder that goes first. */
static void requests(void)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_responder *responder = fcgiguard_responder_new(), *second = fcgiguard_responder_new();
    fcgiguard_client *one = fcgiguard_client_new(), *two = fcgiguard_client_new();
    fcgiguard_request *first = NULL, *other = NULL;
    char folder[] = "/tmp/fcgiguard-misuse-XXXXXX", path[64];
    const uint8_t *piece = NULL;
    uint8_t byte = 0;
    size_t len = 0;

    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/a.sock", folder);
    CHECK(fcgiguard_responder_open(responder, path, error) == 0);
    CHECK(is(fcgiguard_responder_open(responder, path, error), "wrong_state"));
    CHECK(is(fcgiguard_responder_attach(responder, 0, NULL, error), "wrong_state"));
    /* Another one on the same address: the first still serves there. */
    CHECK(is(fcgiguard_responder_open(second, path, error), "address_in_use"));
    CHECK(is(fcgiguard_responder_attach(second, -1, NULL, error), "invalid_descriptor"));
    CHECK(is(fcgiguard_responder_attach(second, 9999, NULL, error), "invalid_descriptor"));

    CHECK(ask(one, path, error) && fcgiguard_responder_accept(responder, &first, error) == 1);
    CHECK(fcgiguard_request_param(first, "B", &piece, &len, error) == 0 && fcgiguard_request_param(first, "A", &piece, &len, error) == 1);
    CHECK(fcgiguard_request_read(first, &byte, 1, error) == 0);
    CHECK(fcgiguard_request_send_file(first, -1, 0, 1, error) < 0);
    /* The next one is taken while the first is in hand: the first is over. */
    CHECK(ask(two, path, error) && fcgiguard_responder_accept(responder, &other, error) == 1);
    CHECK(is((int32_t)fcgiguard_request_write(first, &byte, 1, error), "no_request"));
    CHECK(is((int32_t)fcgiguard_request_read(first, &byte, 1, error), "no_request"));
    CHECK(is(fcgiguard_request_param(first, "A", &piece, &len, error), "no_request"));
    CHECK(is(fcgiguard_request_finish(first, error), "no_request"));
    CHECK(fcgiguard_request_write(other, (const uint8_t *)"\r\n", 2, error) == 2);
    /* The responder goes before its request: the request's calls are errors, and its free is the caller's as ever. */
    fcgiguard_responder_free(responder);
    CHECK(fcgiguard_request_role(other) == 1);
    fcgiguard_request_write(other, &byte, 1, error);
    fcgiguard_request_free(other);
    /* A client that goes in the middle. */
    fcgiguard_client_free(two);
    fcgiguard_client_free(one);
    fcgiguard_responder_free(second);
    fcgiguard_error_free(error);
    unlink(path);
    rmdir(folder);
}

/* An answer that is larger than what memory there is, while the body is written: an error, and the program goes on. */
static void memory_ends(void)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_client *client = fcgiguard_client_new();
    char folder[] = "/tmp/fcgiguard-misuse-XXXXXX", path[64];
    static uint8_t zeros[65536];
    struct rlimit before, less;
    int64_t wrote = 0;
    int status = 0, tries;
    long pages = 0;
    FILE *statm;
    pid_t child;

    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/a.sock", folder);
    child = fork();
    if (child == 0) {
        /* Answers 100 MB before it reads; the client goes away in the middle. */
        fcgiguard_error *own = fcgiguard_error_new();
        fcgiguard_responder *responder = fcgiguard_responder_new();
        fcgiguard_request *request = NULL;
        alarm(60);
        if (fcgiguard_responder_open(responder, path, own) == 0 && fcgiguard_responder_accept(responder, &request, own) == 1) {
            for (tries = 0; tries < 1600 && fcgiguard_request_write(request, zeros, sizeof zeros, own) > 0; tries++) continue;
        }
        fcgiguard_request_free(request);
        fcgiguard_responder_free(responder);
        fcgiguard_error_free(own);
        fcgiguard_client_free(client);
        fcgiguard_error_free(error);
        _exit(0);
    }
    for (tries = 0; tries < 1000 && fcgiguard_client_connect(client, path, error) < 0; tries++) poll(NULL, 0, 10);
    CHECK(fcgiguard_client_set(client, "hold", "90M", error) == 0 && fcgiguard_client_begin(client, error) == 0);
    /* 16 MB more than there are now. */
    statm = fopen("/proc/self/statm", "r");
    CHECK(statm && fscanf(statm, "%ld", &pages) == 1);
    if (statm) fclose(statm);
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    less = before;
    less.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (16 << 20);
    CHECK(setrlimit(RLIMIT_AS, &less) == 0);
    while ((wrote = fcgiguard_client_write(client, zeros, sizeof zeros, error)) >= 0) continue;
    CHECK(is((int32_t)wrote, "out_of_memory"));
    /* Where something small went to the library's reserve just before, the call is refused at its door, and the request is not lost. */
    if (strstr(fcgiguard_error_message(error), "nothing was done") == NULL) {
        CHECK(strstr(fcgiguard_error_message(error), "hold") != NULL);
        CHECK(is(fcgiguard_client_end(client, error), "wrong_state") && fcgiguard_client_is_connected(client) == 0);
    }
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    fcgiguard_client_free(client);
    fcgiguard_error_free(error);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    unlink(path);
    rmdir(folder);
}

/* Used after free: told while nothing else has got the memory, which reads freed memory, so not under valgrind and sanitizers. */
static void freed(void)
{
    fcgiguard_probe *probe = fcgiguard_probe_new();

    fcgiguard_probe_free(probe);
    CHECK(is(fcgiguard_probe_set(probe, "timeout", "1s", NULL), "wrong_state"));
    fcgiguard_probe_free(probe);
}

int main(int argc, char **argv)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_pool *pool = fcgiguard_pool_new();
    fcgiguard_probe *probe = fcgiguard_probe_new();
    fcgiguard_responder *responder = fcgiguard_responder_new();
    fcgiguard_client *client = fcgiguard_client_new();
    fcgiguard_request *request = NULL;
    fcgiguard_report *report = NULL;
    fcgiguard_worker *worker = NULL;
    fcgiguard_event *event = NULL;
    const uint8_t *piece = NULL;
    size_t len = 0;
    size_t at;
    int codes = 0, options = 0, status = 0;
    pid_t child;

    /* The tables can be walked, and end. */
    for (at = 0; fcgiguard_code_at(at); at++) codes += fcgiguard_code_name(fcgiguard_code_at(at)) && fcgiguard_code_advice(fcgiguard_code_at(at));
    CHECK(codes > 50 && (size_t)codes == at);
    for (at = 0; fcgiguard_option_name(at); at++) options += fcgiguard_option_text(fcgiguard_option_name(at)) != NULL;
    CHECK(options > 50 && (size_t)options == at);
    CHECK(fcgiguard_code_name(-12345) == NULL && fcgiguard_option_kind("nonsense") == NULL);

    /* NULL everywhere. */
    CHECK(is(fcgiguard_pool_set(NULL, "workers", "1", error), "null_argument"));
    CHECK(is(fcgiguard_pool_set(pool, NULL, "1", error), "null_argument"));
    CHECK(is(fcgiguard_pool_open(NULL, error), "null_argument"));
    CHECK(is(fcgiguard_pool_step(NULL, 0, NULL), "null_argument"));
    CHECK(is(fcgiguard_pool_set_command(pool, NULL, error), "null_argument"));
    CHECK(is(fcgiguard_pool_worker(pool, NULL, error), "null_argument"));
    CHECK(is(fcgiguard_probe_run(probe, NULL, &report, error), "null_argument"));
    CHECK(is(fcgiguard_probe_run(probe, "/x", NULL, error), "null_argument"));
    CHECK(is(fcgiguard_responder_accept(responder, NULL, error), "null_argument"));
    CHECK(is((int32_t)fcgiguard_request_read(NULL, NULL, 0, error), "null_argument") || fcgiguard_request_read(NULL, NULL, 0, error) == 0);
    CHECK(is((int32_t)fcgiguard_request_write(NULL, (const uint8_t *)"x", 1, error), "null_argument"));
    CHECK(is(fcgiguard_request_finish(NULL, error), "null_argument"));
    CHECK(is(fcgiguard_worker_ready(NULL, error), "null_argument"));
    CHECK(fcgiguard_worker_is_leaving(NULL) == 0 && fcgiguard_pool_get(NULL, "workers") == NULL);
    CHECK(fcgiguard_report_text(NULL, "line") == NULL && fcgiguard_report_exit_code(NULL) == 3);
    CHECK(fcgiguard_trace_new("nonsense") == NULL && fcgiguard_trace_new(NULL) == NULL);
    CHECK(is(fcgiguard_client_set(NULL, "timeout", "1s", error), "null_argument"));
    CHECK(is(fcgiguard_client_set(client, NULL, "1s", error), "null_argument"));
    CHECK(is(fcgiguard_client_set(client, "timeout", NULL, error), "null_argument"));
    CHECK(is(fcgiguard_client_connect(NULL, "/x", error), "null_argument"));
    CHECK(is(fcgiguard_client_connect(client, NULL, error), "null_argument"));
    CHECK(is(fcgiguard_client_param(NULL, (const uint8_t *)"A", 1, NULL, 0, error), "null_argument"));
    CHECK(is(fcgiguard_client_param(client, NULL, 1, NULL, 0, error), "null_argument"));
    CHECK(is(fcgiguard_client_param(client, (const uint8_t *)"A", 1, NULL, 1, error), "null_argument"));
    CHECK(is(fcgiguard_client_begin(NULL, error), "null_argument") && is(fcgiguard_client_end(NULL, error), "null_argument"));
    CHECK(is((int32_t)fcgiguard_client_write(NULL, (const uint8_t *)"x", 1, error), "null_argument"));
    CHECK(is((int32_t)fcgiguard_client_write_data(NULL, (const uint8_t *)"x", 1, error), "null_argument"));
    CHECK(is(fcgiguard_client_read(NULL, &piece, &len, error), "null_argument"));
    CHECK(is(fcgiguard_client_read(client, NULL, &len, error), "null_argument"));
    CHECK(is(fcgiguard_client_read(client, &piece, NULL, NULL), "null_argument"));
    CHECK(is(fcgiguard_client_head(NULL, error), "null_argument") && is(fcgiguard_client_abort(NULL, error), "null_argument"));
    CHECK(is(fcgiguard_client_header_at(NULL, 0, &piece, &len, &piece, &len, error), "null_argument"));
    CHECK(is(fcgiguard_client_close(NULL, error), "null_argument") && fcgiguard_client_is_connected(NULL) == 0);
    CHECK(fcgiguard_client_app_status(NULL) == -1 && fcgiguard_client_protocol_status(NULL) == -1);
    fcgiguard_client_free(NULL);
    fcgiguard_pool_free(NULL);
    fcgiguard_error_free(NULL);
    fcgiguard_request_free(NULL);

    /* Wrong names, values and addresses. */
    CHECK(is(fcgiguard_pool_set(pool, "nonsense", "1", error), "unknown_option"));
    CHECK(is(fcgiguard_pool_set(pool, "workers", "many", error), "invalid_option"));
    CHECK(strstr(fcgiguard_error_message(error), "workers") != NULL);
    CHECK(is(fcgiguard_probe_set(probe, "timeout", "soon", error), "invalid_option"));
    CHECK(is(fcgiguard_address_check("host:90x", error), "invalid_address"));
    CHECK(strstr(fcgiguard_error_message(error), "character 8") != NULL);
    CHECK(fcgiguard_error_code(error) == -201);
    CHECK(fcgiguard_address_check("[::1]:9000", error) == 0 && fcgiguard_error_code(error) == -201);

    /* Wrong order. */
    CHECK(is(fcgiguard_pool_step(pool, 0, error), "wrong_state"));
    CHECK(is(fcgiguard_pool_next_event(pool, &event, error), "wrong_state"));
    CHECK(is(fcgiguard_pool_worker(pool, &worker, error), "wrong_state"));
    CHECK(is(fcgiguard_responder_accept(responder, &request, error), "wrong_state"));
    CHECK(is(fcgiguard_responder_attach(responder, 1, NULL, error), "invalid_descriptor"));
    CHECK(fcgiguard_worker_from_environment(&worker, error) == 0 && worker == NULL);

    /* A client: nothing before connect, and an argument's fault is not the connection's. */
    CHECK(is(fcgiguard_client_begin(client, error), "wrong_state") && is(fcgiguard_client_end(client, error), "wrong_state"));
    CHECK(is((int32_t)fcgiguard_client_write(client, (const uint8_t *)"x", 1, error), "wrong_state"));
    CHECK(is((int32_t)fcgiguard_client_write_data(client, (const uint8_t *)"x", 1, error), "wrong_state"));
    CHECK(is(fcgiguard_client_read(client, &piece, &len, error), "wrong_state") && is(fcgiguard_client_abort(client, error), "wrong_state"));
    CHECK(is(fcgiguard_client_head(client, error), "wrong_state") && fcgiguard_client_app_status(client) == -1);
    CHECK(is(fcgiguard_client_header_at(client, 0, &piece, &len, &piece, &len, error), "wrong_state"));
    CHECK(is(fcgiguard_client_param(client, (const uint8_t *)"A", 0, NULL, 0, error), "invalid_argument"));
    CHECK(is(fcgiguard_client_set(client, "nonsense", "1", error), "unknown_option"));
    CHECK(is(fcgiguard_client_set(client, "keep_conn", "2", error), "invalid_option"));
    CHECK(is(fcgiguard_client_set(client, "role", "king", error), "invalid_option"));
    CHECK(is(fcgiguard_client_connect(client, "nonsense", error), "invalid_address"));
    CHECK(is(fcgiguard_client_connect(client, "fd:0", error), "invalid_address"));
    CHECK(is(fcgiguard_client_connect(client, "/nonexistent/x.sock", error), "no_socket"));
    CHECK(strstr(fcgiguard_error_message(error), "/nonexistent/x.sock") != NULL);
    CHECK(is(fcgiguard_client_begin(client, error), "no_socket") && fcgiguard_client_close(client, error) == 0);

    /* Every fault at once, and nothing bound. */
    fcgiguard_pool_set(pool, "workers", "0", error);
    fcgiguard_pool_set(pool, "listen", "/nonexistent/folder/x.sock", error);
    fcgiguard_pool_set(pool, "max_surge", "0", error);
    CHECK(fcgiguard_pool_open(pool, error) < 0);
    CHECK(strstr(fcgiguard_error_message(error), "workers") && strstr(fcgiguard_error_message(error), "max_surge"));
    fcgiguard_pool_set(pool, "workers", "1", error);
    fcgiguard_pool_set(pool, "max_surge", "1", error);
    CHECK(is(fcgiguard_pool_open(pool, error), "socket_folder"));

    requests();
    if (argc > 1 && strcmp(argv[1], "freed") == 0) {
        freed();
        memory_ends(); /* valgrind and sanitizers need their address space */
    }

    /* In a forked child a handle is only good for free. */
    fflush(stdout);
    child = fork();
    if (child == 0) {
        int ok = is(fcgiguard_pool_set(pool, "workers", "2", NULL), "wrong_process") &&
                 is(fcgiguard_probe_set(probe, "timeout", "1s", NULL), "wrong_process") &&
                 is(fcgiguard_client_begin(client, NULL), "wrong_process") && fcgiguard_client_app_status(client) == -1;
        fcgiguard_client_free(client);
        fcgiguard_responder_free(responder);
        fcgiguard_probe_free(probe);
        fcgiguard_pool_free(pool);
        fcgiguard_error_free(error);
        _exit(ok ? 0 : 1);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);

    fcgiguard_client_free(client);
    fcgiguard_responder_free(responder);
    fcgiguard_probe_free(probe);
    fcgiguard_pool_free(pool);
    fcgiguard_error_free(error);
    printf("misuse: %d passed, %d failed\n", passed, failed);
    return failed != 0;
}
