/* Finding requests and ending them: FCGX_Accept*, FCGX_Finish*, and what threads share.
 *
 * A thread keeps its acceptor, and with it kept connections and half-sent heads, however its program makes and drops
 * FCGX_Request structures. Where one thread accepts and others serve, requests are detached from it.
 */
#include "shim.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How long a leaving thread waits for the requests of others: fcgiguard's own default stop_timeout. And for threads that have
   finished a request and may come for the next, with a kept connection that has it already. */
enum { LEAVE_WAIT_S = 30, COMING_WAIT_S = 1 };
/* How often a wait that a signal may end looks at deadlines of heads and kept connections, ms. */
enum { SWEEP_MS = 1000 };
/* Unused requests that are kept for the next, besides those in hand. */
enum { SPARE_MAX = 64 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static int key_made;
/* Guards the rest. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finished = PTHREAD_COND_INITIALIZER;
static struct acceptor *unused_acceptors;
static struct Params *unused_params;
static int spare;
static int in_hand;
/* Threads that look for a request. One that a manager's worker has may have taken a connection already. */
static int seeking;
/* Acceptors whose thread is between a request's end and its next accept. */
static int coming;
static int acceptors;
static int cgi_taken;
static fcgiguard_worker *worker;
/* Raised by a fork: what the parent made is of no use to the child. */
static int generation;

static FCGX_Request the_request;
static int the_request_made;

struct acceptor *shim_enter(struct Params *p)
{
    /* In a forked child its calls fail; the lock may be held by a thread that is not there. */
    if (p->generation != generation) return NULL;
    for (;;) {
        struct acceptor *a = __atomic_load_n(&p->acceptor, __ATOMIC_ACQUIRE);

        if (!a) return NULL;
        pthread_mutex_lock(&a->lock);
        if (__atomic_load_n(&p->acceptor, __ATOMIC_ACQUIRE) == a) return a;
        pthread_mutex_unlock(&a->lock);
    }
}

void shim_leave(struct acceptor *a)
{
    if (a) pthread_mutex_unlock(&a->lock);
}

/* With the acceptor's lock held: parts its request from it. 0, or -1 if it cannot be. */
static int detach(struct acceptor *a)
{
    struct Params *p = a->hand;

    if (!p) return 0;
    if (fcgiguard_request_detach(p->request, p->error) != 1) return -1;
    a->hand = NULL;
    __atomic_store_n(&p->acceptor, NULL, __ATOMIC_RELEASE);
    return 0;
}

/* With the lock held: nobody has to wait for the acceptor's thread to come. */
static void came(struct acceptor *a)
{
    coming -= a->coming;
    a->coming = 0;
}

/* A thread ends: its acceptors are for others. */
static void give_up(void *list)
{
    struct acceptor *a = list;

    while (a) {
        struct acceptor *next = a->next;

        if (a->generation == generation) {
            pthread_mutex_lock(&a->lock);
            if (detach(a) < 0 && a->hand) {
                /* Cannot be parted: it ends with its responder. */
                __atomic_store_n(&a->hand->acceptor, NULL, __ATOMIC_RELEASE);
                a->hand = NULL;
            }
            fcgiguard_responder_free(a->responder);
            a->responder = NULL;
            pthread_mutex_unlock(&a->lock);
            pthread_mutex_lock(&lock);
            came(a);
            a->next = unused_acceptors;
            unused_acceptors = a;
            acceptors--;
            pthread_mutex_unlock(&lock);
        }
        a = next;
    }
}

static void in_child(void)
{
    pthread_mutex_t unlocked = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t nobody = PTHREAD_COND_INITIALIZER;

    generation++;
    lock = unlocked;
    finished = nobody;
    unused_acceptors = NULL;
    unused_params = NULL;
    worker = NULL;
    spare = in_hand = seeking = coming = acceptors = 0;
}

static void on_leave(int signo)
{
    (void)signo;
    FCGX_ShutdownPending();
}

/* As libfcgi does, and only where the program has left the default. */
static void catch_signal(int signo, void (*handler)(int))
{
    struct sigaction now, set;

    if (sigaction(signo, NULL, &now) != 0 || now.sa_handler != SIG_DFL) return;
    memset(&set, 0, sizeof set);
    set.sa_handler = handler;
    sigemptyset(&set.sa_mask);
    sigaction(signo, &set, NULL);
}

static void init(void)
{
    key_made = pthread_key_create(&key, give_up) == 0;
    pthread_atfork(NULL, NULL, in_child);
    catch_signal(SIGPIPE, SIG_IGN);
    catch_signal(SIGUSR1, on_leave);
    fcgiguard_worker_from_environment(&worker, NULL);
    /* From outside, as a supervisor does that ends all of a service's processes: what is in hand comes first. The manager sees to
       it that it ends. */
    if (worker) {
        catch_signal(SIGTERM, on_leave);
        catch_signal(SIGINT, on_leave);
        catch_signal(SIGHUP, on_leave);
    }
}

int FCGX_Init(void)
{
    pthread_once(&once, init);
    return key_made ? 0 : ENOMEM;
}

int FCGX_IsCGI(void) { return fcgiguard_responder_is_fastcgi(0) == 0; }

void FCGX_ShutdownPending(void) { fcgiguard_responder_leave_all(); }

int FCGX_InitRequest(FCGX_Request *request, int sock, int flags)
{
    memset(request, 0, sizeof *request);
    request->listen_sock = sock;
    request->flags = flags;
    request->ipcFd = -1;
    return 0;
}

/* The thread's acceptor for a listening socket, made if there is none. */
static struct acceptor *acceptor_of(int fd, int *why)
{
    struct acceptor *first = pthread_getspecific(key), *a;
    int32_t done;

    *why = ENOMEM;
    for (a = first; a; a = a->next) {
        if (a->fd == fd && a->generation == generation) return a;
    }
    pthread_mutex_lock(&lock);
    a = unused_acceptors;
    if (a) unused_acceptors = a->next;
    pthread_mutex_unlock(&lock);
    if (!a) {
        a = calloc(1, sizeof *a);
        if (!a) return NULL;
        pthread_mutex_init(&a->lock, NULL);
    }
    a->fd = fd;
    a->generation = generation;
    a->hands_over = 0;
    a->responder = fcgiguard_responder_new();
    pthread_mutex_lock(&lock);
    if (fcgiguard_responder_is_fastcgi(fd)) {
        /* Threads that share a socket must not wait in accept for what another has taken. */
        int flags = acceptors > 0 ? fcntl(fd, F_GETFL) : -1;

        if (flags >= 0 && !(flags & O_NONBLOCK)) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
        done = fcgiguard_responder_attach(a->responder, fd, worker, NULL);
        *why = EIO;
    } else if (fd == 0 && !cgi_taken) {
        cgi_taken = 1;
        done = fcgiguard_responder_open(a->responder, NULL, NULL);
        *why = EIO;
    } else {
        *why = fd == 0 ? ECANCELED : fcntl(fd, F_GETFL) < 0 ? EBADF : ENOTSOCK;
        done = -1;
    }
    if (done >= 0) acceptors++;
    pthread_mutex_unlock(&lock);
    a->next = first;
    if (done < 0 || pthread_setspecific(key, a) != 0) {
        fcgiguard_responder_free(a->responder);
        a->responder = NULL;
        pthread_mutex_lock(&lock);
        if (done >= 0) acceptors--;
        a->next = unused_acceptors;
        unused_acceptors = a;
        pthread_mutex_unlock(&lock);
        return NULL;
    }
    return a;
}

static struct Params *new_params(void)
{
    struct Params *p;

    pthread_mutex_lock(&lock);
    p = unused_params;
    if (p) {
        unused_params = p->next;
        spare--;
    }
    pthread_mutex_unlock(&lock);
    if (p) return p;
    p = calloc(1, sizeof *p);
    if (p) p->error = fcgiguard_error_new();
    return p;
}

static void drop_params(struct Params *p)
{
    free(p->envp);
    p->envp = NULL;
    p->request = NULL;
    p->of = NULL;
    pthread_mutex_lock(&lock);
    if (spare < SPARE_MAX) {
        p->next = unused_params;
        unused_params = p;
        spare++;
        p = NULL;
    }
    pthread_mutex_unlock(&lock);
    if (!p) return;
    fcgiguard_error_free(p->error);
    free(p);
}

/* NAME=VALUE strings in one block, the pointers first. NULL without memory. */
static char **make_envp(fcgiguard_request *request, int role)
{
    static const char *const roles[] = {"FCGI_ROLE=RESPONDER", "FCGI_ROLE=AUTHORIZER", "FCGI_ROLE=FILTER"};
    const char *said = roles[role >= 1 && role <= 3 ? role - 1 : 0];
    size_t count = fcgiguard_request_param_count(request), bytes = strlen(said) + 1, i, name_len, value_len;
    const uint8_t *name, *value;
    char **envp, *to;

    for (i = 0; i < count; i++) {
        if (fcgiguard_request_param_at(request, i, &name, &name_len, &value, &value_len, NULL) != 1) count = i;
        else bytes += name_len + value_len + 2;
    }
    envp = malloc((count + 2) * sizeof *envp + bytes);
    if (!envp) return NULL;
    to = (char *)(envp + count + 2);
    envp[0] = to;
    memcpy(to, said, strlen(said) + 1);
    to += strlen(said) + 1;
    for (i = 0; i < count; i++) {
        fcgiguard_request_param_at(request, i, &name, &name_len, &value, &value_len, NULL);
        envp[i + 1] = to;
        memcpy(to, name, name_len);
        to += name_len;
        *to++ = '=';
        memcpy(to, value, value_len);
        to += value_len;
        *to++ = '\0';
    }
    envp[count + 1] = NULL;
    return envp;
}

/* The program is about to leave: what is in hand comes first. A thread that holds several itself waits in vain, and not long. */
static void wait_for_others(void)
{
    struct timespec until, come;
    int late = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    come = until;
    until.tv_sec += LEAVE_WAIT_S;
    come.tv_sec += COMING_WAIT_S;
    pthread_mutex_lock(&lock);
    for (;;) {
        int others = in_hand > 0 || ((worker || cgi_taken) && seeking > 0);

        if (!others && (late || coming == 0)) break;
        if (pthread_cond_timedwait(&finished, &lock, others ? &until : &come) == 0) continue;
        if (others) break;
        late = 1;
    }
    pthread_mutex_unlock(&lock);
}

/* Waits for a request: 1, 0 to leave, -EINTR, or a code of the library. */
static int32_t find(struct acceptor *a, FCGX_Request *request, fcgiguard_request **found, fcgiguard_error *error)
{
    struct pollfd look;

    if (!(request->flags & FCGI_FAIL_ACCEPT_ON_INTR)) return fcgiguard_responder_accept(a->responder, found, error);
    for (;;) {
        int32_t done = fcgiguard_responder_next(a->responder, found, error);

        if (done != 2) return done;
        look.fd = fcgiguard_responder_fd(a->responder, error);
        look.events = POLLIN;
        if (look.fd < 0) return look.fd;
        if (poll(&look, 1, SWEEP_MS) < 0 && errno == EINTR) return -EINTR;
    }
}

/* One thread more, or less, that looks for a request. */
static void seek(int change)
{
    pthread_mutex_lock(&lock);
    seeking += change;
    pthread_cond_broadcast(&finished);
    pthread_mutex_unlock(&lock);
}

/* A request is over. */
static void over(struct Params *p)
{
    int here = p->generation == generation;

    drop_params(p);
    if (!here) return;
    pthread_mutex_lock(&lock);
    in_hand--;
    pthread_cond_broadcast(&finished);
    pthread_mutex_unlock(&lock);
}

int FCGX_Accept_r(FCGX_Request *request)
{
    struct acceptor *a;
    struct Params *p;
    int why;
    int32_t done;

    if (FCGX_Init() != 0) return -ENOMEM;
    FCGX_Finish_r(request);
    /* Before plain CGI's one request is taken: whoever finds it taken waits for a thread that is seen. */
    seek(1);
    a = acceptor_of(request->listen_sock, &why);
    if (!a) {
        seek(-1);
        /* Another thread has the one request of plain CGI. */
        if (why == ECANCELED) wait_for_others();
        return -why;
    }
    pthread_mutex_lock(&a->lock);
    if (a->hand) a->hands_over = 1;
    done = detach(a);
    pthread_mutex_unlock(&a->lock);
    pthread_mutex_lock(&lock);
    came(a);
    pthread_mutex_unlock(&lock);
    if (done < 0) {
        seek(-1);
        /* Plain CGI again, and this thread had it: another finishes it. */
        wait_for_others();
        return -ECANCELED;
    }
    p = new_params();
    if (!p) {
        seek(-1);
        return -ENOMEM;
    }
    done = find(a, request, &p->request, p->error);
    pthread_mutex_lock(&lock);
    seeking--;
    in_hand += done == 1;
    /* Another thread may have ended the request before this one while this one was looking. */
    came(a);
    pthread_cond_broadcast(&finished);
    pthread_mutex_unlock(&lock);
    p->generation = generation;
    if (done != 1) {
        drop_params(p);
        if (done == 0) wait_for_others();
        return done == 0 ? -ECANCELED : done == -EINTR ? -EINTR : -EIO;
    }
    request->role = fcgiguard_request_role(p->request);
    p->envp = make_envp(p->request, request->role);
    if (!p->envp) {
        /* Its connection is closed at the next accept, after an empty answer. */
        fcgiguard_request_free(p->request);
        over(p);
        return -ENOMEM;
    }
    p->of = request;
    shim_streams_init(p);
    pthread_mutex_lock(&a->lock);
    a->hand = p;
    __atomic_store_n(&p->acceptor, a, __ATOMIC_RELEASE);
    if (a->hands_over) detach(a);
    pthread_mutex_unlock(&a->lock);
    request->paramsPtr = p;
    request->requestId = request->isBeginProcessed = 1;
    request->keepConnection = request->appStatus = 0;
    request->nWriters = 2;
    request->in = &p->in;
    request->out = &p->out;
    request->err = &p->err;
    request->envp = p->envp;
    return 0;
}

/* Takes the request out of the structure. */
static struct Params *take(FCGX_Request *request)
{
    struct Params *p = request->paramsPtr;

    request->paramsPtr = NULL;
    request->in = request->out = request->err = NULL;
    request->envp = NULL;
    request->requestId = request->isBeginProcessed = request->nWriters = request->detached = 0;
    return p;
}

void FCGX_Finish_r(FCGX_Request *request)
{
    struct Params *p = request ? take(request) : NULL;
    struct acceptor *a;

    if (!p) return;
    FCGX_FClose(&p->err);
    FCGX_FClose(&p->out);
    a = shim_enter(p);
    /* Whoever is gone needs no answer; the next request is what counts. */
    fcgiguard_request_finish(p->request, p->error);
    if (a) {
        a->hand = NULL;
        __atomic_store_n(&p->acceptor, NULL, __ATOMIC_RELEASE);
        pthread_mutex_lock(&lock);
        coming += !a->coming;
        a->coming = 1;
        pthread_mutex_unlock(&lock);
    }
    shim_leave(a);
    over(p);
}

void FCGX_Free(FCGX_Request *request, int close)
{
    struct Params *p = request ? take(request) : NULL;
    struct acceptor *a;

    (void)close;
    if (!p) return;
    a = shim_enter(p);
    if (a && detach(a) < 0) {
        a->hand = NULL;
        __atomic_store_n(&p->acceptor, NULL, __ATOMIC_RELEASE);
    }
    /* A detached one goes with its connection. */
    fcgiguard_request_free(p->request);
    shim_leave(a);
    over(p);
}

int FCGX_Detach(FCGX_Request *request)
{
    struct Params *p = request->paramsPtr;
    struct acceptor *a;
    int done = 0;

    if (!p) return -1;
    a = shim_enter(p);
    if (a) done = detach(a);
    shim_leave(a);
    if (done == 0) request->detached = 1;
    return done;
}

int FCGX_Attach(FCGX_Request *request)
{
    request->detached = 0;
    return 0;
}

int FCGX_Accept(FCGX_Stream **in, FCGX_Stream **out, FCGX_Stream **err, FCGX_ParamArray *envp)
{
    int done;

    if (!the_request_made) {
        done = FCGX_Init();
        if (done != 0) return -done;
        FCGX_InitRequest(&the_request, 0, 0);
        the_request_made = 1;
    }
    done = FCGX_Accept_r(&the_request);
    *in = the_request.in;
    *out = the_request.out;
    *err = the_request.err;
    *envp = the_request.envp;
    return done;
}

void FCGX_Finish(void) { FCGX_Finish_r(&the_request); }

char *FCGX_GetParam(const char *name, FCGX_ParamArray envp)
{
    size_t len = strlen(name);

    if (!envp) return NULL;
    for (; *envp; envp++) {
        if (strncmp(*envp, name, len) == 0 && (*envp)[len] == '=') return *envp + len + 1;
    }
    return NULL;
}
