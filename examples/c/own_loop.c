/* A pre-fork server whose workers keep an accept loop and a protocol code of their own: the pool only guards them.
 *
 *   own_loop ADDRESS [WORKERS]
 *
 * The three calls that matter are fcgiguard_worker_wait before accept, _pre_dispatch when a request begins, and _post_dispatch when
 * it is done. What speaks FastCGI here is a stand-in for the code that such a program has already.
 */
#include <errno.h>
#include <fcgiguard.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { BEGIN = 1, ABORT = 2, END = 3, STDIN = 5, STDOUT = 6, GET_VALUES = 9, GET_VALUES_RESULT = 10 };

/* Reads all of it: 1, or 0 when the connection ends or fails first. */
static int take(int fd, unsigned char *into, size_t len)
{
    while (len > 0) {
        ssize_t got = recv(fd, into, len, 0);
        if (got == 0 || (got < 0 && errno != EINTR)) return 0;
        if (got > 0) {
            into += got;
            len -= (size_t)got;
        }
    }
    return 1;
}

/* Sends all of it: 1, or 0. MSG_NOSIGNAL, for a web server that went away must not end the worker. */
static int give(int fd, const unsigned char *from, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, from, len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) return 0;
        if (sent > 0) {
            from += sent;
            len -= (size_t)sent;
        }
    }
    return 1;
}

/* Appends a record without padding to `out`, and returns its length. */
static size_t put(unsigned char *out, int type, unsigned id, const void *content, size_t len)
{
    out[0] = 1;
    out[1] = (unsigned char)type;
    out[2] = (unsigned char)(id >> 8);
    out[3] = (unsigned char)id;
    out[4] = (unsigned char)(len >> 8);
    out[5] = (unsigned char)len;
    out[6] = out[7] = 0;
    if (len) memcpy(out + 8, content, len);
    return len + 8;
}

/* The answer to one request; 1 if it went out. */
static int answer(int fd, unsigned id)
{
    static const unsigned char complete[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    unsigned char out[512];
    char text[128];
    size_t len;
    int count = snprintf(text, sizeof text, "Content-Type: text/plain\r\nX-Worker-Pid: %ld\r\n\r\nhello from a loop of my own\n",
                         (long)getpid());

    len = put(out, STDOUT, id, text, (size_t)count);
    len += put(out + len, STDOUT, id, "", 0);
    len += put(out + len, END, id, complete, sizeof complete);
    return give(fd, out, len);
}

/* Serves a connection to its end: 1 go on, 0 the worker should leave. */
static int serve(int fd, fcgiguard_worker *worker, fcgiguard_error *error)
{
    unsigned char head[8], content[65535 + 255], none[8];
    struct timeval patience = {1, 0}; /* seconds that a silent peer, or a kept connection, may hold this worker */
    int open = 1, keep = 1, go_on = 1;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    while (open && take(fd, head, sizeof head)) {
        unsigned id = (unsigned)head[2] << 8 | head[3];
        size_t len = (size_t)head[4] << 8 | head[5];
        if (!take(fd, content, len + head[6])) break;
        if (head[1] == GET_VALUES) {
            open = give(fd, none, put(none, GET_VALUES_RESULT, 0, "", 0));
        } else if (head[1] == BEGIN) {
            if (len < 8 || fcgiguard_worker_pre_dispatch(worker, error) < 0) break;
            keep = content[2] & 1;
        } else if (head[1] == ABORT || (head[1] == STDIN && len == 0)) {
            open = answer(fd, id) && keep;
            go_on = fcgiguard_worker_post_dispatch(worker, error) == 1;
            open = open && go_on;
        }
    }
    return go_on;
}

static int work(fcgiguard_pool *pool, fcgiguard_error *error)
{
    fcgiguard_worker *worker = NULL;
    int listener = fcgiguard_pool_listener(pool, 0);
    int32_t more = fcgiguard_pool_worker(pool, &worker, error);

    if (more == 0) more = 1;
    while (more == 1 && (more = fcgiguard_worker_wait(worker, listener, -1, error)) == 1) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0) {
            more = serve(fd, worker, error);
            close(fd);
        }
        /* else another worker was faster, or the peer is gone already: wait again */
    }
    if (more < 0) fprintf(stderr, "own_loop: worker: %s\n", fcgiguard_error_message(error));
    fcgiguard_worker_free(worker);
    return more < 0;
}

int main(int argc, char **argv)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_pool *pool = fcgiguard_pool_new();
    int32_t step = -1;
    int status = 1;

    if (argc < 2) {
        fprintf(stderr, "usage: own_loop ADDRESS [WORKERS]\n");
    } else if (fcgiguard_pool_set(pool, "listen", argv[1], error) < 0 ||
               fcgiguard_pool_set(pool, "workers", argc > 2 ? argv[2] : "2", error) < 0 ||
               fcgiguard_pool_open(pool, error) < 0 || (step = fcgiguard_pool_run(pool, error)) < 0) {
        fprintf(stderr, "own_loop: %s\n", fcgiguard_error_message(error));
    } else if (step == FCGIGUARD_STEP_WORKER) {
        status = work(pool, error);
    } else {
        status = fcgiguard_pool_exit_code(pool);
    }
    fcgiguard_pool_free(pool);
    fcgiguard_error_free(error);
    return status;
}
