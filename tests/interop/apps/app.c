/* libfcgi by its FCGX calls: descriptor 0, or the socket of argument 1. */
#include <fcgiapp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    FCGX_Request request;
    if (FCGX_Init() != 0) return 1;
    int listener = argc > 1 ? FCGX_OpenSocket(argv[1], 16) : 0;
    if (listener < 0 || FCGX_InitRequest(&request, listener, 0) != 0) return 2;
    while (FCGX_Accept_r(&request) == 0) {
        const char *query = FCGX_GetParam("QUERY_STRING", request.envp);
        const char *uri = FCGX_GetParam("REQUEST_URI", request.envp);
        const char *sleep_ms = query ? strstr(query, "sleep=") : NULL;
        char buffer[65536];
        long got = 0;
        int n;
        if (sleep_ms) usleep(1000u * (unsigned)atoi(sleep_ms + 6));
        while ((n = FCGX_GetStr(buffer, sizeof buffer, request.in)) > 0) got += n;
        FCGX_FPrintF(request.out, "Content-Type: text/plain\r\nX-Worker: %d\r\n\r\npid=%d app=libfcgi uri=%s body=%ld\n",
                     (int)getpid(), (int)getpid(), uri ? uri : "", got);
        FCGX_Finish_r(&request);
    }
    return 0;
}
