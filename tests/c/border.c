/* The border: every function of fcgiguard.h with NULL for each of its pointers, and every handle in another process, in use (re-entry
 * from a callback, a second thread), and poisoned by a forced panic. The calls are in border.h, which border.py makes from the header.
 * Linked with a library that has the hooks of ffi/src/hooks.rs.
 */
#include <fcgiguard.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "border.h"

typedef void inside_fn(void *userdata);

#ifdef __cplusplus
extern "C" {
#endif
int32_t fcgiguard_test_panic(fcgiguard_error *error);
#define HOOKS(kind)                                                                              \
    int32_t fcgiguard_test_panic_##kind(fcgiguard_##kind *handle, fcgiguard_error *error);       \
    int32_t fcgiguard_test_inside_##kind(fcgiguard_##kind *handle, inside_fn *inside, void *userdata);
HOOKS(client)
HOOKS(pool)
HOOKS(event)
HOOKS(probe)
HOOKS(report)
HOOKS(responder)
HOOKS(request)
HOOKS(trace)
HOOKS(worker)
#ifdef __cplusplus
}
#endif

static int passed, failed;
static fcgiguard_error *error;
static const char *wanted; /* the name of the code that calls of the lists are to return */
static char folder[] = "/tmp/fcgiguard-border-XXXXXX", path[64], pool_path[64];

static int is(int32_t code, const char *name)
{
    const char *found = fcgiguard_code_name(code);
    return found && strcmp(found, name) == 0;
}

static void check(int ok, const char *what, const char *how)
{
    if (ok) {
        passed++;
    } else {
        failed++;
        printf("%s: %s (wanted %s; the error says: %s)\n", what, how, wanted, fcgiguard_error_message(error));
    }
}

#define CHECK(condition) check((condition) != 0, #condition, "")

/* What goes in and comes out. */
static uint8_t bytes[8];
static const uint8_t *piece;
static size_t len;
static int32_t numbers[4];
static int16_t shorts[4];
static fcgiguard_param params[4];
static const char *const argv_ok[] = {"/bin/true", NULL};
static fcgiguard_request *out_request;
static fcgiguard_report *out_report;
static fcgiguard_event *out_event;
static fcgiguard_worker *out_worker;

/* The handles, each made when first asked for. */
static fcgiguard_client *client;
static fcgiguard_pool *pool, *manager;
static fcgiguard_event *event;
static fcgiguard_probe *probe;
static fcgiguard_report *report;
static fcgiguard_responder *responder;
static fcgiguard_request *request;
static fcgiguard_client *asker;
static fcgiguard_responder *answerer;
static fcgiguard_trace *trace;
static fcgiguard_worker *worker;

static fcgiguard_client *get_client(void) { return client ? client : (client = fcgiguard_client_new()); }
static fcgiguard_pool *get_pool(void) { return pool ? pool : (pool = fcgiguard_pool_new()); }
static fcgiguard_probe *get_probe(void) { return probe ? probe : (probe = fcgiguard_probe_new()); }
static fcgiguard_responder *get_responder(void) { return responder ? responder : (responder = fcgiguard_responder_new()); }
static fcgiguard_trace *get_trace(void) { return trace ? trace : (trace = fcgiguard_trace_new("responder")); }
static fcgiguard_worker *get_worker(void) { return worker; }

static fcgiguard_report *get_report(void)
{
    fcgiguard_probe *once;

    if (report) return report;
    once = fcgiguard_probe_new();
    fcgiguard_probe_run(once, "/nonexistent/x.sock", &report, error);
    fcgiguard_probe_free(once);
    return report;
}

/* From a pool that starts one worker, of another program. */
static fcgiguard_event *get_event(void)
{
    int32_t step = 0;

    if (event) return event;
    manager = fcgiguard_pool_new();
    fcgiguard_pool_set(manager, "listen", pool_path, error);
    fcgiguard_pool_set(manager, "workers", "1", error);
    fcgiguard_pool_set_command(manager, argv_ok, error);
    if (fcgiguard_pool_open(manager, error) == 0) {
        while ((step = fcgiguard_pool_step(manager, 1000, error)) == FCGIGUARD_STEP_IDLE) continue;
    }
    if (step == FCGIGUARD_STEP_EVENTS) fcgiguard_pool_next_event(manager, &event, error);
    return event;
}

static void end_pool(void)
{
    if (!manager) return;
    fcgiguard_pool_quit(manager, error);
    while (fcgiguard_pool_step(manager, 1000, error) != FCGIGUARD_STEP_ENDED) {
        while (fcgiguard_pool_next_event(manager, &out_event, error) == 1) fcgiguard_event_free(out_event);
    }
    fcgiguard_pool_free(manager);
    manager = NULL;
}

/* From a client of this same process. */
static fcgiguard_request *get_request(void)
{
    struct pollfd arrives;
    int tries;

    if (request) return request;
    answerer = fcgiguard_responder_new();
    asker = fcgiguard_client_new();
    if (fcgiguard_responder_open(answerer, path, error) == 0 && fcgiguard_client_connect(asker, path, error) == 0 &&
        fcgiguard_client_param(asker, (const uint8_t *)"A", 1, (const uint8_t *)"b", 1, error) == 0 &&
        fcgiguard_client_begin(asker, error) == 0 && fcgiguard_client_end(asker, error) == 0) {
        arrives.fd = fcgiguard_responder_fd(answerer, error);
        arrives.events = POLLIN;
        for (tries = 0; tries < 100 && fcgiguard_responder_next(answerer, &request, error) == 2; tries++) poll(&arrives, 1, 200);
    }
    return request;
}

static void let_request_go(void)
{
    fcgiguard_client_free(asker);
    fcgiguard_responder_free(answerer);
    asker = NULL;
    answerer = NULL;
}

#define FREE(kind) fcgiguard_##kind##_free(kind), kind = NULL

/* Every handle again from nothing. */
static void free_all(void)
{
    FREE(client);
    FREE(pool);
    FREE(event);
    end_pool();
    FREE(probe);
    FREE(report);
    FREE(responder);
    FREE(request);
    let_request_go();
    FREE(trace);
}

#define LISTS(kind, KIND)                                                  \
    static void free_##kind(void *unused) { (void)unused; fcgiguard_##kind##_free(get_##kind()); } \
    static void every_call_##kind(void *unused) { (void)unused; EVERY_CALL_##KIND }   \
    static void elsewhere_##kind(void *unused) { (void)unused; ELSEWHERE_##KIND }
LISTS(client, CLIENT)
LISTS(pool, POOL)
LISTS(event, EVENT)
LISTS(probe, PROBE)
LISTS(report, REPORT)
LISTS(responder, RESPONDER)
LISTS(request, REQUEST)
LISTS(trace, TRACE)
LISTS(worker, WORKER)

/* In a child: the list of the parent's handle. */
static void in_another_process(inside_fn *list)
{
    int status = 0;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        passed = failed = 0;
        wanted = "wrong_process";
        list(NULL);
        fflush(stdout);
        _exit(failed != 0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct errand {
    inside_fn *list, *free;
};

static void *run_errand(void *argument)
{
    ((struct errand *)argument)->list(NULL);
    return NULL;
}

/* Runs while the handle is in use: the list from the callback itself, and from a second thread. */
static void in_use(void *argument)
{
    pthread_t thread;

    wanted = "wrong_state";
    ((struct errand *)argument)->free(NULL); /* leaves it alone */
    run_errand(argument);
    CHECK(pthread_create(&thread, NULL, run_errand, argument) == 0 && pthread_join(thread, NULL) == 0);
}

#define EVERY(kind)                                                                                     \
    do {                                                                                                \
        struct errand errand = {every_call_##kind, free_##kind};                                                    \
        check(get_##kind() != NULL, #kind, "made");                                                     \
        if (strcmp(#kind, "worker") != 0) in_another_process(elsewhere_##kind);                      \
        fcgiguard_test_inside_##kind(get_##kind(), in_use, &errand); \
        CHECK(is(fcgiguard_test_panic_##kind(get_##kind(), error), "internal"));                        \
        CHECK(strstr(fcgiguard_error_message(error), "on purpose"));                                    \
        wanted = "poisoned";                                                                            \
        every_call_##kind(NULL);                                                                        \
    } while (0)

static int work(void)
{
    fcgiguard_pool *of_the_parent = pool;

    pool = NULL;
    failed = 0;
    CHECK(fcgiguard_pool_worker(of_the_parent, &worker, error) == 0 && fcgiguard_pool_listener(of_the_parent, 0) >= 0);
    wanted = "wrong_process";
    CHECK(is(fcgiguard_pool_reload(of_the_parent, NULL, error), wanted));
    fcgiguard_worker_ready(worker, error);
    wanted = "null_argument";
    NULLS_OF_A_WORKER
    EVERY(worker);
    fcgiguard_worker_free(worker);
    fcgiguard_pool_free(of_the_parent);
    free_all();
    fcgiguard_error_free(error);
    printf("border, in a worker: %d passed, %d failed\n", passed, failed);
    fflush(stdout);
    return failed ? 8 : 0;
}

/* A worker's handle exists in a worker only. */
static int workers(void)
{
    int32_t step;
    int status = -1;

    fcgiguard_pool_set(get_pool(), "listen", pool_path, error);
    fcgiguard_pool_set(pool, "workers", "1", error);
    fcgiguard_pool_set(pool, "fatal_codes", "8", error);
    CHECK(fcgiguard_pool_open(pool, error) == 0);
    while ((step = fcgiguard_pool_step(pool, 20000, error)) >= 0 && step != FCGIGUARD_STEP_ENDED && status == -1) {
        if (step == FCGIGUARD_STEP_WORKER) exit(work());
        while (fcgiguard_pool_next_event(pool, &out_event, error) == 1) {
            if (status == -1) status = fcgiguard_event_status(out_event);
            fcgiguard_event_free(out_event);
        }
    }
    check(status == 0, "worker", "its checks");
    manager = pool;
    pool = NULL;
    end_pool();
    return 0;
}

int main(void)
{
    alarm(100); /* a call that waits is a failed test */
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/a.sock", folder);
    snprintf(pool_path, sizeof pool_path, "%s/b.sock", folder);
    error = fcgiguard_error_new();

    wanted = "null_argument";
    NULLS
    free_all();

    wanted = "internal";
    CHECK(is(fcgiguard_test_panic(error), "internal") && is(fcgiguard_test_panic(NULL), "internal"));
    EVERY(client);
    EVERY(pool);
    EVERY(event);
    EVERY(probe);
    EVERY(report);
    EVERY(responder);
    EVERY(trace);
    EVERY(request); /* its list ends with the call that frees it */
    request = NULL;
    free_all();
    workers();
    free_all();
    fcgiguard_error_free(error);
    unlink(path);
    unlink(pool_path);
    rmdir(folder);
    printf("border: %d passed, %d failed; %d functions\n", passed, failed, HOW_MANY);
    return failed != 0;
}
