/* The wait of a managed worker whose requests FCGI.pm parses. From the claim of the line to the end of FCGI.pm's accept the
 * signals that ask a worker to leave are held back: libfcgi gives a connection up when one falls into its first look at it. */
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>

static struct {
    sigset_t before;
    bool holds;
} waiting;

static const sigset_t *waiting_deferred(void)
{
    static sigset_t set;
    static bool made = FALSE;
    if (!made) {
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGHUP);
        sigaddset(&set, SIGINT);
        made = TRUE;
    }
    return &set;
}

static void waiting_release(void)
{
    if (!waiting.holds) return;
    waiting.holds = FALSE;
    (void)sigprocmask(SIG_SETMASK, &waiting.before, NULL);
}
