/* A program with a poll loop of its own, in which the pool is a guest: the manager waits for the pool's descriptors among its own,
 * and each worker for its responder's descriptor among its own.
 *
 *   event_loop ADDRESS [WORKERS]
 *
 * TERM ends the pool after the requests in flight, HUP replaces the workers. A real program would keep its sockets and timers where
 * this one keeps a pipe from its signal handlers and a tick.
 */
#include <errno.h>
#include <fcgiguard.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TICK_MS = 1000 };

static int wake[2] = {-1, -1};

static void on_signal(int number)
{
    int before = errno;
    unsigned char byte = (unsigned char)number;
    ssize_t written = write(wake[1], &byte, 1);

    (void)written; /* full: the loop is awake already */
    errno = before;
}

static int failed(const char *who, fcgiguard_error *error)
{
    fprintf(stderr, "event_loop: %s: %s\n", who, fcgiguard_error_message(error));
    return 1;
}

/* The worker's loop. Its responder takes what is there and never waits: the waiting is ours. */
static int work(fcgiguard_pool *pool, fcgiguard_error *error)
{
    fcgiguard_worker *worker = NULL;
    fcgiguard_responder *responder = fcgiguard_responder_new();
    fcgiguard_request *request = NULL;
    long ticks = 0, served = 0;
    int32_t more = fcgiguard_pool_worker(pool, &worker, error);
    struct pollfd mine[1];

    mine[0].events = POLLIN;
    if (more == 0) more = fcgiguard_responder_attach(responder, fcgiguard_pool_listener(pool, 0), worker, error);
    if (more == 0) more = mine[0].fd = fcgiguard_responder_fd(responder, error);
    if (more >= 0 && fcgiguard_worker_ready(worker, error) < 0) more = -1;
    while (more >= 0) {
        while ((more = fcgiguard_responder_next(responder, &request, error)) == 1) {
            char text[160];
            snprintf(text, sizeof text, "Content-Type: text/plain\r\nX-Worker-Pid: %ld\r\n\r\nrequest %ld, tick %ld\n",
                     (long)getpid(), ++served, ticks);
            fcgiguard_request_write(request, (const uint8_t *)text, strlen(text), error);
            fcgiguard_request_finish(request, error);
        }
        if (more != 2) break; /* 0: leave; below: an error */
        if (poll(mine, 1, TICK_MS) == 0) ticks++;
    }
    fcgiguard_responder_free(responder);
    fcgiguard_worker_free(worker);
    return more < 0 ? failed("worker", error) : 0;
}

/* The pool's descriptors behind our own, in arrays that grow. Returns their number with ours, or -1. */
struct waits {
    struct pollfd *all;
    int32_t *fds;
    int16_t *events;
    size_t room;
};

static int gather(fcgiguard_pool *pool, struct waits *waits, fcgiguard_error *error)
{
    int32_t at, count;

    while ((count = fcgiguard_pool_poll_fds(pool, waits->fds, waits->events, waits->room, error)) > (int32_t)waits->room) {
        size_t room = (size_t)count * 2;
        free(waits->all);
        free(waits->fds);
        free(waits->events);
        waits->room = 0;
        waits->all = (struct pollfd *)calloc(room + 1, sizeof *waits->all);
        waits->fds = (int32_t *)calloc(room, sizeof *waits->fds);
        waits->events = (int16_t *)calloc(room, sizeof *waits->events);
        if (!waits->all || !waits->fds || !waits->events) return -1;
        waits->room = room;
    }
    if (count < 0) return -1;
    for (at = 0; at < count; at++) {
        waits->all[at + 1].fd = waits->fds[at];
        waits->all[at + 1].events = waits->events[at];
    }
    return count + 1;
}

static void show_events(fcgiguard_pool *pool, fcgiguard_error *error)
{
    fcgiguard_event *event = NULL;

    while (fcgiguard_pool_next_event(pool, &event, error) == 1) {
        fprintf(stderr, "%s\n", fcgiguard_event_text(event));
        fcgiguard_event_free(event);
    }
}

static void signals(fcgiguard_pool *pool, fcgiguard_error *error)
{
    unsigned char byte;

    while (read(wake[0], &byte, 1) == 1) {
        if (byte == SIGHUP) fcgiguard_pool_reload(pool, "HUP", error);
        else fcgiguard_pool_stop(pool, error);
    }
}

/* The manager's loop: what step returned, or below 0. */
static int32_t manage(fcgiguard_pool *pool, fcgiguard_error *error)
{
    struct waits waits = {NULL, NULL, NULL, 0};
    int32_t step;

    for (;;) {
        int64_t timer;
        int count;

        while ((step = fcgiguard_pool_step(pool, 0, error)) == FCGIGUARD_STEP_EVENTS) show_events(pool, error);
        if (step != FCGIGUARD_STEP_IDLE) break;
        if ((count = gather(pool, &waits, error)) < 0) {
            step = -1;
            break;
        }
        waits.all[0].fd = wake[0];
        waits.all[0].events = POLLIN;
        waits.all[0].revents = 0;
        timer = fcgiguard_pool_next_timer_ms(pool);
        /* Only the first descriptor is ours; whichever of the others woke us, the step finds out itself. */
        if (poll(waits.all, (nfds_t)count, timer < 0 || timer > TICK_MS ? TICK_MS : (int)timer) > 0 && waits.all[0].revents) {
            signals(pool, error);
        }
    }
    free(waits.all);
    free(waits.fds);
    free(waits.events);
    if (step >= 0) show_events(pool, error);
    return step;
}

int main(int argc, char **argv)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_pool *pool = fcgiguard_pool_new();
    struct sigaction action;
    int32_t step;
    int status;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    if (argc < 2) {
        fprintf(stderr, "usage: event_loop ADDRESS [WORKERS]\n");
        status = 3;
    } else if (pipe(wake) < 0 || fcntl(wake[0], F_SETFL, O_NONBLOCK) < 0 || fcntl(wake[1], F_SETFL, O_NONBLOCK) < 0 ||
               sigaction(SIGTERM, &action, NULL) < 0 || sigaction(SIGHUP, &action, NULL) < 0) {
        perror("event_loop");
        status = 1;
    } else if (fcgiguard_pool_set(pool, "listen", argv[1], error) < 0 ||
               fcgiguard_pool_set(pool, "workers", argc > 2 ? argv[2] : "2", error) < 0 ||
               fcgiguard_pool_open(pool, error) < 0 || (step = manage(pool, error)) < 0) {
        status = failed("pool", error);
    } else if (step == FCGIGUARD_STEP_WORKER) {
        /* The handlers are the manager's: a worker is told by its pool when to leave. */
        signal(SIGTERM, SIG_DFL);
        signal(SIGHUP, SIG_IGN);
        close(wake[0]);
        close(wake[1]);
        status = work(pool, error);
    } else {
        status = fcgiguard_pool_exit_code(pool);
    }
    fcgiguard_pool_free(pool);
    fcgiguard_error_free(error);
    return status;
}
