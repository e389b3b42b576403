/* The suite's application on libfcgi; see ours.c. usage: libfcgi SOCKET */
#include <fcgiapp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int main(int argc, char **argv) {
    if (argc < 2 || FCGX_Init()) return 3;
    static char buffer[65536];
    FCGX_Request request;
    FCGX_InitRequest(&request, FCGX_OpenSocket(argv[1], 128), 0);
    while (FCGX_Accept_r(&request) == 0) {
        const char *query = FCGX_GetParam("QUERY_STRING", request.envp), *x = FCGX_GetParam("X", request.envp);
        const char *proxy = FCGX_GetParam("HTTP_PROXY", request.envp), *role = FCGX_GetParam("FCGI_ROLE", request.envp);
        long long len = 0, data = 0;
        int n;
        query = query ? query : "";
        FCGX_PutS("Content-Type: text/plain\r\n\r\n", request.out);
        if (!strcmp(query, "early")) {
            memset(buffer, 'x', sizeof buffer);
            for (int i = 0; i < 64; i++) FCGX_PutStr(buffer, sizeof buffer, request.out);
        }
        if (!strcmp(query, "slow")) nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
        if (!strcmp(query, "err")) FCGX_PutS("oops\n", request.err);
        if (!strcmp(query, "status")) FCGX_SetExitStatus(3, request.out);
        while ((n = FCGX_GetStr(buffer, sizeof buffer, request.in)) > 0) len += n;
        if (role && !strcmp(role, "FILTER") && FCGX_StartFilterData(request.in) == 0)
            while ((n = FCGX_GetStr(buffer, sizeof buffer, request.in)) > 0) data += n;
        FCGX_FPrintF(request.out, "len=%d data=%d role=%s proxy=%d x=", (int)len, (int)data, role ? role : "?",
                     (int)(proxy ? strlen(proxy) : 0));
        for (int i = 0; x && x[i] && i < 64; i++) FCGX_FPrintF(request.out, "%02x", (unsigned char)x[i]);
        FCGX_PutS("\n", request.out);
        FCGX_Finish_r(&request);
    }
    return 0;
}
