/* libfcgi's hello, to compare with. usage: libfcgi_hello SOCKET [BYTES]; cc -lfcgi */
#include <fcgiapp.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc < 2 || FCGX_Init()) return 3;
    int size = argc > 2 ? atoi(argv[2]) : 100;
    char *body = malloc((size_t)size + 1), sink[65536];
    memset(body, 'x', (size_t)size);
    FCGX_Request request;
    FCGX_InitRequest(&request, FCGX_OpenSocket(argv[1], 128), 0);
    while (FCGX_Accept_r(&request) == 0) {
        while (FCGX_GetStr(sink, sizeof sink, request.in) > 0) {}
        FCGX_PutS("Content-Type: text/plain\r\n\r\n", request.out);
        FCGX_PutStr(body, size, request.out);
        FCGX_Finish_r(&request);
    }
    return 0;
}
