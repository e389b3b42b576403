/* A pre-fork server in C: the pool forks, each worker answers with its own responder.
 *
 *   prefork ADDRESS [WORKERS]
 *
 * HUP replaces the workers, USR2 the program itself: sockets stay open, workers live on until the new program's are ready.
 */
#include <fcgiguard.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int work(fcgiguard_pool *pool, fcgiguard_error *error)
{
    fcgiguard_worker *worker = NULL;
    fcgiguard_responder *responder = fcgiguard_responder_new();
    fcgiguard_request *request = NULL;
    int32_t more = fcgiguard_pool_worker(pool, &worker, error);

    if (more == 0) more = fcgiguard_responder_attach(responder, fcgiguard_pool_listener(pool, 0), worker, error);
    while (more >= 0 && (more = fcgiguard_responder_accept(responder, &request, error)) == 1) {
        char text[128];
        snprintf(text, sizeof text, "Content-Type: text/plain\r\nX-Worker-Pid: %ld\r\n\r\nhello from worker %ld\n",
                 (long)getpid(), (long)getpid());
        fcgiguard_request_write(request, (const uint8_t *)text, strlen(text), error);
        fcgiguard_request_finish(request, error);
    }
    if (more < 0) fprintf(stderr, "prefork: worker: %s\n", fcgiguard_error_message(error));
    fcgiguard_responder_free(responder);
    fcgiguard_worker_free(worker);
    return more < 0;
}

static void tell(fcgiguard_event *event, void *userdata)
{
    (void)userdata;
    fprintf(stderr, "prefork: %s: %s\n", fcgiguard_event_kind(event), fcgiguard_event_text(event));
}

int main(int argc, char **argv)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_pool *pool = fcgiguard_pool_new();
    int32_t step = -1;
    int status = 1;

    if (argc < 2) {
        fprintf(stderr, "usage: prefork ADDRESS [WORKERS]\n");
    } else if (fcgiguard_pool_set(pool, "listen", argv[1], error) < 0 ||
               fcgiguard_pool_set(pool, "workers", argc > 2 ? argv[2] : "2", error) < 0 ||
               fcgiguard_pool_set_image(pool, (const char *const *)argv, error) < 0 ||
               fcgiguard_pool_on_event(pool, tell, NULL, error) < 0 ||
               fcgiguard_pool_open(pool, error) < 0 || (step = fcgiguard_pool_run(pool, error)) < 0) {
        fprintf(stderr, "prefork: %s\n", fcgiguard_error_message(error));
    } else if (step == FCGIGUARD_STEP_WORKER) {
        status = work(pool, error);
    } else {
        status = fcgiguard_pool_exit_code(pool);
    }
    fcgiguard_pool_free(pool);
    fcgiguard_error_free(error);
    return status;
}
