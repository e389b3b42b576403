/* Echoes params and body, with stdio's own names: a CGI program that gained a loop.
 *
 * For libfcgi and for libfcgiguard_fcgiapp alike. Without a web server: REQUEST_METHOD=GET ./echo
 */
#include "fcgi_stdio.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    int served = 0;

    while (FCGI_Accept() >= 0) {
        const char *method = getenv("REQUEST_METHOD"), *query = getenv("QUERY_STRING"), *length = getenv("CONTENT_LENGTH");
        long announced = length ? strtol(length, NULL, 10) : 0, got = 0;
        unsigned long sum = 5381;
        char line[200];
        int c;

        printf("Content-Type: text/plain\r\nX-Served: %d\r\n\r\n", ++served);
        printf("method=%s\nquery=%s\nlength=%ld\n", method ? method : "?", query ? query : "?", announced);
        fputs("path=", stdout);
        puts(getenv("PATH_INFO") ? getenv("PATH_INFO") : "");
        if (query && strstr(query, "line")) {
            while (fgets(line, sizeof line, stdin) != NULL) got += (long)strlen(line);
            printf("lines, eof=%d\n", feof(stdin) != 0);
        } else {
            while (got < announced && (c = getchar()) != EOF) {
                if (got == 0) {
                    ungetc(c, stdin);
                    c = getchar();
                }
                sum = (sum * 33 + (unsigned long)c) & 0xffffffffUL;
                got++;
            }
        }
        printf("body=%ld sum=%08lx\n", got, sum);
        if (query && strstr(query, "error")) fprintf(stderr, "echo: told to complain, %s\n", query);
        if (query && strstr(query, "exit")) FCGI_SetExitStatus(3);
        if (query && strstr(query, "big")) {
            for (c = 0; c < 20000; c++) printf("%07d\n", c);
        }
    }
    return 0;
}
