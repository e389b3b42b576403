/* The same with the FCGX_ calls: streams and params are arguments. For libfcgi and for libfcgiguard_fcgiapp alike. */
#include "fcgiapp.h"
#include <stdlib.h>
#include <string.h>

static void echo(FCGX_Stream *in, FCGX_Stream *out, FCGX_Stream *err, FCGX_ParamArray envp)
{
    const char *query = FCGX_GetParam("QUERY_STRING", envp), *length = FCGX_GetParam("CONTENT_LENGTH", envp);
    const char *role = FCGX_GetParam("FCGI_ROLE", envp);
    int announced = length ? (int)strtol(length, NULL, 10) : 0, got = 0, count, i;
    char *body = malloc((size_t)announced + 1);

    FCGX_FPrintF(out, "Content-Type: application/octet-stream\r\n\r\n");
    FCGX_FPrintF(out, "role=%s length=%d query=%s\n", role ? role : "?", announced, query ? query : "?");
    for (i = 0; envp[i] != NULL; i++) {
        if (strncmp(envp[i], "HTTP_X_", 7) == 0) {
            FCGX_PutS(envp[i], out);
            FCGX_PutChar('\n', out);
        }
    }
    if (body) {
        while (got < announced && (count = FCGX_GetStr(body + got, announced - got, in)) > 0) got += count;
        FCGX_PutStr(body, got, out);
        free(body);
    }
    FCGX_FPrintF(out, "\nread=%d eof=%d error=%d\n", got, FCGX_GetChar(in) == -1, FCGX_GetError(in));
    if (query && strstr(query, "error")) FCGX_FPrintF(err, "echo-x: told to complain, %s\n", query);
    if (query && strstr(query, "exit")) FCGX_SetExitStatus(3, out);
    if (query && strstr(query, "flush")) FCGX_FFlush(out);
}

int main(void)
{
    FCGX_Stream *in, *out, *err;
    FCGX_ParamArray envp;

    while (FCGX_Accept(&in, &out, &err, &envp) >= 0) echo(in, out, err, envp);
    return 0;
}
