/* libfcgi, FCGX_Accept_r. */
#include <fcgiapp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void bye(void) { fputs("END ran\n", stderr); }
int main(void) {
    FCGX_Request request;
    atexit(bye);
    FCGX_Init();
    FCGX_InitRequest(&request, 0, 0);
    while (FCGX_Accept_r(&request) >= 0) {
        const char *query = FCGX_GetParam("QUERY_STRING", request.envp), *sleep_for;
        char child[128] = "";
        if (query && (sleep_for = strstr(query, "sleep="))) usleep(1000 * atoi(sleep_for + 6));
        if (query && strstr(query, "child")) {
            FILE *pipe = popen("grep SigBlk /proc/self/status", "r");
            if (pipe) { if (!fgets(child, sizeof child, pipe)) child[0] = 0; pclose(pipe); }
        }
        FCGX_FPrintF(request.out, "Content-Type: text/plain\r\n\r\nok %d %s", (int)getpid(), child);
        FCGX_Finish_r(&request);
    }
    return 0;
}
