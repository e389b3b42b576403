/* The calls that the examples leave out: filter data, push back, lines, giving up, fork, a wait that a signal ends. */
#include "fcgiapp.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t alarms;

static void on_alarm(int signo)
{
    (void)signo;
    alarms++;
}

static void filter(FCGX_Request *r)
{
    char piece[32];
    int early = FCGX_StartFilterData(r->in), wrong = FCGX_GetError(r->in), count, body = 0;

    FCGX_ClearError(r->in);
    while ((count = FCGX_GetStr(piece, sizeof piece, r->in)) > 0) body += count;
    FCGX_FPrintF(r->out, "Content-Type: text/plain\r\n\r\nrole=%d early=%d error=%d body=%d start=%d data=", r->role, early < 0,
                 wrong, body, FCGX_StartFilterData(r->in));
    while (FCGX_GetLine(piece, sizeof piece, r->in) != NULL) FCGX_FPrintF(r->out, "[%.*s]", (int)strcspn(piece, "\n"), piece);
    FCGX_FPrintF(r->out, " eof=%d", FCGX_HasSeenEOF(r->in) != 0);
}

static void push_back(FCGX_Request *r)
{
    static char big[20000];
    int first = FCGX_GetChar(r->in), back = FCGX_UnGetChar('<', r->in), again = FCGX_GetChar(r->in), count, last;

    count = FCGX_GetStr(big, 10000, r->in); /* past the buffer: read straight */
    last = FCGX_UnGetChar(big[count - 1], r->in);
    FCGX_FPrintF(r->out, "Content-Type: text/plain\r\n\r\n%c%c%c %d %d %d", first, back, again, count, last == FCGX_GetChar(r->in),
                 FCGX_UnGetChar(-1, r->in));
    count = FCGX_GetStr(big, sizeof big, r->in);
    FCGX_FPrintF(r->out, " %d %d", count, FCGX_GetChar(r->in));
}

int main(void)
{
    FCGX_Request r;
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    if (FCGX_Init() != 0 || FCGX_InitRequest(&r, 0, FCGI_FAIL_ACCEPT_ON_INTR) != 0) return 1;
    for (;;) {
        int done = FCGX_Accept_r(&r);
        const char *query;

        if (done == -EINTR) continue;
        if (done < 0) break;
        query = FCGX_GetParam("QUERY_STRING", r.envp);
        if (r.role == 3) {
            filter(&r);
        } else if (!strcmp(query, "push")) {
            push_back(&r);
        } else if (!strcmp(query, "alarm")) {
            FCGX_FPrintF(r.out, "Content-Type: text/plain\r\n\r\n%d", (int)alarms);
        } else if (!strcmp(query, "free")) {
            FCGX_PutS("Content-Type: text/plain\r\n\r\nnever seen", r.out);
            FCGX_Free(&r, 1);
        } else if (!strcmp(query, "fork")) {
            pid_t child = fork();
            int status = 0;

            if (child == 0) {
                int refused = FCGX_PutS("from the child", r.out) >= 0 ? FCGX_FFlush(r.out) : -1;

                FCGX_Finish_r(&r);
                _exit(refused == -1 ? 7 : 8);
            }
            waitpid(child, &status, 0);
            FCGX_FPrintF(r.out, "Content-Type: text/plain\r\n\r\nchild %d", WEXITSTATUS(status));
        } else if (!strcmp(query, "detach")) {
            FCGX_FPrintF(r.out, "Content-Type: text/plain\r\n\r\n%d %d", FCGX_Detach(&r), FCGX_Attach(&r));
        } else if (!strcmp(query, "shutdown")) {
            FCGX_ShutdownPending();
            FCGX_PutS("Content-Type: text/plain\r\n\r\nlast", r.out);
        } else {
            char *long_one = malloc(100001);

            memset(long_one, 'y', 100000);
            long_one[100000] = '\0';
            FCGX_FPrintF(r.out, "Content-Type: text/plain\r\n\r\n%s|%5.2f|%-4d|", long_one, 3.14159, 42);
            FCGX_FClose(r.out);
            if (FCGX_PutChar('z', r.out) != -1 || FCGX_PutStr("zz", 2, r.out) != -1) return 2;
            free(long_one);
        }
    }
    /* After the shutdown nothing is accepted any more. */
    return FCGX_Accept_r(&r) < 0 ? 0 : 3;
}
