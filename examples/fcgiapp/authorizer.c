/* An authorizer: may this request pass? 200 with variables for the server, or 403. For libfcgi and for
 * libfcgiguard_fcgiapp alike. Behind lighttpd: "mode" => "authorizer".
 */
#include "fcgi_stdio.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    while (FCGI_Accept() >= 0) {
        const char *pass = getenv("HTTP_X_PASS");

        if (pass && strcmp(pass, "open sesame") == 0) {
            printf("Status: 200 OK\r\nVariable-AUTH_METHOD: word\r\nVariable-AUTH_BY: %s\r\n\r\n", getenv("FCGI_ROLE"));
        } else {
            printf("Status: 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nThe word, please.\n");
        }
    }
    return 0;
}
