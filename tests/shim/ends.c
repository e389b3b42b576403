/* How an accepting thread and its connections end: one thread accepts, the main one runs the handler of SIGTERM.
 * A request for "fork" leaves a child behind; one for "shutdown" shuts the listening socket down.
 * usage: ends SOCKET */
#include "fcgiapp.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int listening;
static pid_t child;

static void on_term(int signo)
{
    (void)signo;
    FCGX_ShutdownPending();
}

static void *accepting(void *unused)
{
    FCGX_Request r;
    sigset_t term;

    (void)unused;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, NULL);
    FCGX_InitRequest(&r, listening, 0);
    while (FCGX_Accept_r(&r) == 0) {
        const char *query = FCGX_GetParam("QUERY_STRING", r.envp);

        if (!query) query = "";
        if (!strcmp(query, "fork")) {
            child = fork();
            if (child == 0) {
                signal(SIGTERM, SIG_DFL);
                pthread_sigmask(SIG_UNBLOCK, &term, NULL);
                for (;;) pause();
            }
        }
        FCGX_FPrintF(r.out, "Content-Type: text/plain\r\n\r\n%s", query);
        FCGX_Finish_r(&r);
        if (!strcmp(query, "shutdown")) shutdown(listening, SHUT_RDWR);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct sigaction action = {0};
    pthread_t thread;

    if (argc < 2 || FCGX_Init() != 0) return 1;
    action.sa_handler = on_term;
    sigaction(SIGTERM, &action, NULL);
    listening = FCGX_OpenSocket(argv[1], 64);
    if (listening < 0) return 1;
    if (pthread_create(&thread, NULL, accepting, NULL) != 0) return 1;
    pthread_join(thread, NULL);
    if (child > 0) {
        kill(child, SIGTERM);
        waitpid(child, NULL, 0);
    }
    return 0;
}
