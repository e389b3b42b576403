/* One thread accepts, others serve: each request has its own FCGX_Request, finished where it was served. For libfcgi and
 * for libfcgiguard_fcgiapp alike.
 */
#include "fcgiapp.h"
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 6 };

struct job {
    FCGX_Request request;
    struct job *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t news = PTHREAD_COND_INITIALIZER;
static struct job *first, **last = &first;

static void *serve(void *arg)
{
    (void)arg;
    for (;;) {
        struct job *job;
        const char *query;
        char piece[4096];
        long body = 0;
        int count;

        pthread_mutex_lock(&lock);
        while (!first) pthread_cond_wait(&news, &lock);
        job = first;
        first = job->next;
        if (!first) last = &first;
        pthread_mutex_unlock(&lock);
        query = FCGX_GetParam("QUERY_STRING", job->request.envp);
        while ((count = FCGX_GetStr(piece, sizeof piece, job->request.in)) > 0) body += count;
        if (query && *query) usleep((useconds_t)strtoul(query, NULL, 10) * 1000);
        FCGX_FPrintF(job->request.out, "Content-Type: text/plain\r\n\r\nquery=%s body=%ld\n", query ? query : "?", body);
        FCGX_Finish_r(&job->request);
        free(job);
    }
    return NULL;
}

int main(void)
{
    pthread_t thread;
    int i;

    if (FCGX_Init() != 0) return 1;
    for (i = 0; i < THREADS; i++) {
        if (pthread_create(&thread, NULL, serve, NULL) != 0) return 1;
    }
    for (;;) {
        struct job *job = calloc(1, sizeof *job);

        if (!job || FCGX_InitRequest(&job->request, 0, 0) != 0) return 1;
        if (FCGX_Accept_r(&job->request) != 0) {
            free(job);
            return 0;
        }
        pthread_mutex_lock(&lock);
        *last = job;
        last = &job->next;
        pthread_cond_signal(&news);
        pthread_mutex_unlock(&lock);
    }
}
