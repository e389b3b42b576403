/* A program that opens its socket, prepares the library and forks: libfcgi's multi-process way. */
#include "fcgiapp.h"
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t over;

static void on_term(int signo)
{
    (void)signo;
    over = 1;
    FCGX_ShutdownPending();
}

int main(int argc, char **argv)
{
    struct sigaction action = {0};
    int listening, i;

    if (argc < 2 || FCGX_Init() != 0) return 1;
    listening = FCGX_OpenSocket(argv[1], 64);
    if (listening < 0) return 1;
    if (FCGX_OpenSocket(argv[1], 64) >= 0) return 4; /* it is in use */
    action.sa_handler = on_term;
    sigaction(SIGTERM, &action, NULL);
    for (i = 0; i < 3; i++) {
        if (fork() == 0) {
            FCGX_Request r;

            FCGX_InitRequest(&r, listening, 0);
            while (FCGX_Accept_r(&r) == 0) {
                FCGX_FPrintF(r.out, "Content-Type: text/plain\r\n\r\n%d", (int)getpid());
                FCGX_Finish_r(&r);
            }
            _exit(over ? 0 : 5);
        }
    }
    while (!over) pause();
    kill(0, SIGTERM);
    for (i = 0; i < 3; i++) {
        int status;

        if (wait(&status) < 0 || status != 0) return 6;
    }
    return 0;
}
