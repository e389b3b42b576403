/* A loop of the program's own: what fcgiguard_pool_poll_fds lists wakes it, with no timer's help; and re-entry from a callback. */
#include <fcgiguard.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static int failed, bad_exits, timers;

#define CHECK(condition)                                                \
    do {                                                                \
        if (!(condition)) {                                             \
            failed++;                                                   \
            printf("line %d: %s\n", __LINE__, #condition);              \
        }                                                               \
    } while (0)

static int is(int32_t code, const char *name)
{
    const char *found = fcgiguard_code_name(code);
    return found && strcmp(found, name) == 0;
}

static fcgiguard_pool *pool;
static fcgiguard_error *error;
static int32_t from_inside[4];

/* Forks for the pool, and meanwhile calls the pool that is calling: each such call is refused. */
static int32_t fork_and_reenter(void *userdata)
{
    int32_t fd;
    int16_t what;
    fcgiguard_error *own = fcgiguard_error_new();

    (void)userdata;
    from_inside[0] = fcgiguard_pool_step(pool, 0, own);
    from_inside[1] = fcgiguard_pool_stop(pool, own);
    from_inside[2] = fcgiguard_pool_poll_fds(pool, &fd, &what, 1, own);
    from_inside[3] = strstr(fcgiguard_error_message(own), "in use") != NULL;
    fcgiguard_error_free(own);
    return (int32_t)fork();
}

/* In a worker: until it should leave. */
static void work(void)
{
    fcgiguard_worker *worker = NULL;
    int ok = fcgiguard_pool_worker(pool, &worker, error) == 0 && fcgiguard_worker_ready(worker, error) == 0;

    /* The manager's calls are not the worker's. */
    ok = ok && fcgiguard_pool_step(pool, 0, NULL) < 0 && fcgiguard_pool_poll_fds(pool, NULL, NULL, 0, NULL) < 0;
    while (ok && fcgiguard_worker_wait(worker, fcgiguard_pool_listener(pool, 0), 20000, error) == 1) continue;
    fcgiguard_worker_free(worker);
    fcgiguard_pool_free(pool);
    fcgiguard_error_free(error);
    exit(ok ? 0 : 9);
}

/* Steps until an event of this kind: its worker's process id; 0 when the descriptors were silent for too long. */
static int32_t until(const char *kind)
{
    struct pollfd fds[64];
    int32_t list[64];
    int16_t what[64];
    fcgiguard_event *event = NULL;

    for (;;) {
        int32_t at, count, pid = 0, step;
        int timer;
        /* The rest waits for the next call. */
        while (pid == 0 && fcgiguard_pool_next_event(pool, &event, error) == 1) {
            int32_t status = fcgiguard_event_status(event);
            if (strcmp(fcgiguard_event_kind(event), kind) == 0) pid = fcgiguard_event_pid(event);
            if (status != -1 && status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) bad_exits++;
            fcgiguard_event_free(event);
        }
        if (pid != 0) return pid;
        step = fcgiguard_pool_step(pool, 0, error);
        if (step == FCGIGUARD_STEP_WORKER) work();
        if (step == FCGIGUARD_STEP_EVENTS) continue;
        if (step != FCGIGUARD_STEP_IDLE) return step == FCGIGUARD_STEP_ENDED ? 0 : step;
        count = fcgiguard_pool_poll_fds(pool, list, what, 64, error);
        if (count <= 0 || count > 64) return 0;
        for (at = 0; at < count; at++) {
            fds[at].fd = list[at];
            fds[at].events = what[at];
        }
        /* Nothing but a descriptor ends this wait in time. Where children have none (valgrind knows no pidfd), the timer has to. */
        timer = timers ? (int)fcgiguard_pool_next_timer_ms(pool) : 20000;
        if (poll(fds, (nfds_t)count, timer) <= 0 && !timers) return 0;
    }
}

int main(int argc, char **argv)
{
    char folder[] = "/tmp/fcgiguard-loop-XXXXXX", path[64];
    int32_t first, second, fds[2] = {-7, -7}, count;
    int16_t events[2] = {-7, -7};

    timers = argc > 1 && strcmp(argv[1], "timers") == 0;
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/a.sock", folder);
    pool = fcgiguard_pool_new();
    error = fcgiguard_error_new();
    CHECK(is(fcgiguard_pool_poll_fds(NULL, NULL, NULL, 0, error), "null_argument"));
    CHECK(is(fcgiguard_pool_poll_fds(pool, NULL, NULL, 0, error), "wrong_state"));
    CHECK(fcgiguard_pool_next_timer_ms(pool) == -1);
    fcgiguard_pool_set(pool, "listen", path, error);
    fcgiguard_pool_set(pool, "workers", "2", error);
    fcgiguard_pool_set(pool, "sample_interval", "10m", error);
    fcgiguard_pool_set(pool, "restart_delay", "0", error);
    CHECK(fcgiguard_pool_set_fork(pool, fork_and_reenter, NULL, error) == 0);
    CHECK(fcgiguard_pool_open(pool, error) == 0);
    CHECK(is(fcgiguard_pool_poll_fds(pool, NULL, events, 2, error), "null_argument"));
    CHECK(is(fcgiguard_pool_poll_fds(pool, fds, NULL, 2, error), "null_argument"));

    first = until("worker_ready");
    CHECK(first > 1);
    second = until("worker_ready");
    CHECK(second > 1 && second != first);
    CHECK(is(from_inside[0], "wrong_state") && is(from_inside[1], "wrong_state") && is(from_inside[2], "wrong_state"));
    CHECK(from_inside[3] == 1);

    /* The room is kept to, and the answer is how much there is. */
    count = fcgiguard_pool_poll_fds(pool, NULL, NULL, 0, error);
    CHECK(count > 1 && fcgiguard_pool_poll_fds(pool, fds, events, 1, error) == count);
    CHECK(fds[0] >= 0 && events[0] == POLLIN && fds[1] == -7 && events[1] == -7);

    kill((pid_t)first, SIGKILL);
    CHECK(until("worker_exited") == first);
    CHECK(until("worker_ready") > 1);
    CHECK(fcgiguard_pool_stop(pool, error) == 0);
    until("never");
    CHECK(fcgiguard_pool_step(pool, 0, error) == FCGIGUARD_STEP_ENDED && fcgiguard_pool_exit_code(pool) == 0);
    until("never"); /* what is still in the queue */
    CHECK(bad_exits == 0);
    fcgiguard_pool_free(pool);
    fcgiguard_error_free(error);
    unlink(path);
    rmdir(folder);
    printf("loop: %d failed\n", failed);
    return failed != 0;
}
