/* Signals in a child's first microseconds (fork mode): none lost, none handled in the wrong role.
 *
 *   signals ADDRESS COUNT MODE      MODE: responder (the library's accept loop) or handler (a loop and handlers of the host's own)
 *
 * Three processes. The manager's fork hook forks, and hits every second child itself before the hook returns; the others are hit by
 * a striker up to 1.5 ms later. The striker sees that each child that was hit is gone within 10 s, ends the manager by TERM and
 * counts. Children and manager report what they are by single bytes on a pipe: a byte that has no business there is a wrong role. */
#include <fcgiguard.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct hit { pid_t pid; int signo; int done; };

static pid_t manager;
static int to_striker = -1, reports = -1, count, with_handler;
static volatile sig_atomic_t got;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void say(char what)
{
    if (write(reports, &what, 1) != 1) _exit(99);
}

static void on_signal(int signo)
{
    got = signo;
}

static void spin_us(unsigned us)
{
    double until = now() + us / 1e6;
    while (now() < until) {
    }
}

/* The pool's fork, with a signal on its heels. */
static int32_t forker(void *userdata)
{
    static int n;
    pid_t pid;

    (void)userdata;
    /* A child that forks believes to be the manager. */
    if (getpid() != manager) say('F');
    pid = fork();
    if (pid > 0 && n < count) {
        struct hit hit = {pid, n % 4 < 2 ? SIGTERM : SIGHUP, n % 2};
        if (hit.done && kill(pid, hit.signo) != 0) say('K');
        if (write(to_striker, &hit, sizeof hit) != (ssize_t)sizeof hit) say('P');
        n++;
    }
    return pid;
}

/* A worker that was hit must leave: its responder ends, or the host sees it by its own handler or by the library. */
static int work(fcgiguard_pool *pool, fcgiguard_error *error)
{
    fcgiguard_worker *worker = NULL;
    fcgiguard_responder *responder = NULL;
    fcgiguard_request *request = NULL;
    int32_t more;

    say('W');
    if (fcgiguard_pool_worker(pool, &worker, error) < 0) return 44;
    if (with_handler) {
        struct sigaction act;
        memset(&act, 0, sizeof act);
        act.sa_handler = on_signal;
        sigaction(SIGTERM, &act, NULL);
        sigaction(SIGHUP, &act, NULL);
        fcgiguard_worker_ready(worker, error);
        /* Not the library's own wait: a host with a loop of its own looks now and then. */
        while (!got && fcgiguard_worker_is_leaving(worker) == 0) usleep(5000);
        return 0;
    }
    responder = fcgiguard_responder_new();
    more = fcgiguard_responder_attach(responder, fcgiguard_pool_listener(pool, 0), worker, error);
    while (more >= 0 && (more = fcgiguard_responder_accept(responder, &request, error)) == 1) fcgiguard_request_finish(request, error);
    fcgiguard_responder_free(responder);
    fcgiguard_worker_free(worker);
    return more < 0 ? 45 : 0;
}

static int alive(pid_t pid)
{
    char path[64], line[512], state = 'X';
    FILE *file;
    int parent = 0;

    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    file = fopen(path, "r");
    if (!file) return 0;
    if (fgets(line, sizeof line, file) && strrchr(line, ')')) sscanf(strrchr(line, ')') + 1, " %c %d", &state, &parent);
    fclose(file);
    /* A number that somebody else has got since is not ours. */
    return parent == manager && state != 'Z' && state != 'X';
}

static int striker(int from)
{
    struct hit *hits = calloc((size_t)count, sizeof *hits);
    int have = 0, lost = 0;
    double until;

    if (!hits) return 2;
    srand(7);
    while (have < count) {
        struct pollfd ready = {from, POLLIN, 0};
        if (poll(&ready, 1, 60000) <= 0 || read(from, &hits[have], sizeof *hits) != (ssize_t)sizeof *hits) break;
        if (!hits[have].done) {
            spin_us((unsigned)rand() % 1500);
            kill(hits[have].pid, hits[have].signo);
        }
        have++;
    }
    until = now() + 10;
    for (int i = 0; i < have; i++) {
        while (alive(hits[i].pid) && now() < until) usleep(1000);
        lost += alive(hits[i].pid);
        if (alive(hits[i].pid)) fprintf(stderr, "signals: %s to %ld (%s) was lost\n", hits[i].signo == SIGTERM ? "TERM" : "HUP",
                                        (long)hits[i].pid, hits[i].done ? "by the hook" : "by the striker");
    }
    printf("%d of %d signals sent, %d lost", have, count, lost);
    fflush(stdout);
    if (kill(manager, 0) != 0) printf(", MANAGER GONE");
    fflush(stdout);
    kill(manager, SIGTERM);
    free(hits);
    return lost != 0 || have != count;
}

int main(int argc, char **argv)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_pool *pool = fcgiguard_pool_new();
    int hits[2], told[2], status = 1;
    pid_t strike;
    int32_t step;
    /* One failed start must not slow the next: here all fail. */
    const char *const options[][2] = {{"listen", argc > 1 ? argv[1] : ""}, {"workers", "4"}, {"restart_delay", "1ms"},
                                      {"restart_factor", "1"}, {"restart_delay_max", "1ms"}, {"stop_timeout", "2s"}};

    if (argc < 4) return 3;
    count = atoi(argv[2]);
    with_handler = strcmp(argv[3], "handler") == 0;
    if (pipe(hits) != 0 || pipe(told) != 0) return 2;
    to_striker = hits[1];
    reports = told[1];
    manager = getpid();
    fflush(stdout);
    strike = fork();
    if (strike == 0) {
        close(hits[1]);
        exit(striker(hits[0]));
    }
    close(hits[0]);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (fcgiguard_pool_set(pool, options[i][0], options[i][1], error) < 0) goto failed;
    if (fcgiguard_pool_set_fork(pool, forker, NULL, error) < 0 || fcgiguard_pool_open(pool, error) < 0) goto failed;
    step = fcgiguard_pool_run(pool, error);
    if (step == FCGIGUARD_STEP_WORKER) return work(pool, error);
    /* A child that comes back as manager. */
    if (getpid() != manager) {
        say('M');
        _exit(98);
    }
    if (step < 0) goto failed;
    const char *json = fcgiguard_pool_status_json(pool);
    const char *generation = json ? strstr(json, "\"generation\":") : NULL;
    int reloaded = !generation || strncmp(generation, "\"generation\":1,", 15) != 0;
    int served = 0, wrong = 0, left;
    char what[65536];
    struct pollfd more = {told[0], POLLIN, 0};
    while (poll(&more, 1, 0) > 0) {
        ssize_t n = read(told[0], what, sizeof what);
        for (ssize_t i = 0; i < n; i++) {
            served += what[i] == 'W';
            wrong += what[i] != 'W';
            if (what[i] != 'W') fprintf(stderr, "signals: report %c\n", what[i]);
        }
    }
    waitpid(strike, &left, 0);
    status = wrong != 0 || reloaded || left != 0 || fcgiguard_pool_exit_code(pool) != 0;
    printf(", %d in the wrong role, manager %s, %d of the children got as far as to be workers, exit code %d\n", wrong,
           reloaded ? "TOOK A CHILD'S HUP" : "took none of them", served, fcgiguard_pool_exit_code(pool));
    fcgiguard_pool_free(pool);
    fcgiguard_error_free(error);
    return status;
failed:
    fprintf(stderr, "signals: %s\n", fcgiguard_error_message(error));
    kill(strike, SIGKILL);
    return 2;
}
