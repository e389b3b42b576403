/* Several threads, each with its own request on the one listening socket. For libfcgi and for libfcgiguard_fcgiapp alike.
 *
 *   threads [SOCKET]      without: descriptor 0
 */
#include "fcgiapp.h"
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 8 };

static int listening;

static void *serve(void *arg)
{
    int number = (int)(intptr_t)arg;
    FCGX_Request request;

    FCGX_InitRequest(&request, listening, 0);
    while (FCGX_Accept_r(&request) == 0) {
        const char *query = FCGX_GetParam("QUERY_STRING", request.envp);
        char piece[4096];
        long body = 0;
        int count;

        while ((count = FCGX_GetStr(piece, sizeof piece, request.in)) > 0) body += count;
        if (query && *query) usleep((useconds_t)strtoul(query, NULL, 10) * 1000);
        FCGX_FPrintF(request.out, "Content-Type: text/plain\r\nX-Thread: %d\r\n\r\nquery=%s body=%ld\n", number,
                     query ? query : "?", body);
        FCGX_Finish_r(&request);
    }
    FCGX_Free(&request, 1);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread[THREADS];
    int i;

    if (FCGX_Init() != 0) return 1;
    if (argc > 1) listening = FCGX_OpenSocket(argv[1], 128);
    if (listening < 0) return 1;
    for (i = 1; i < THREADS; i++) {
        if (pthread_create(&thread[i], NULL, serve, (void *)(intptr_t)i) != 0) return 1;
    }
    serve(NULL);
    return 0;
}
