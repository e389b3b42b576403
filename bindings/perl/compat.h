/* The FCGI interface's request and its three streams.
 *
 * A request is made before the fork and accepts after it, so it has only a descriptor until its first Accept. Streams are
 * tied to the IO, not to the glob: after `local *STDOUT` a program prints where it has asked to, and Finish still finds what
 * it has to untie. In a forked child streams lead to the real handles below, and nothing there touches the parent's request.
 */

enum { IN_STREAM, OUT_STREAM, ERR_STREAM, STREAMS };
#define FAIL_ON_SIGNAL 1
/* A web server makes a log entry of each STDERR record, so pieces are put together; and many small prints cost less so. */
#define HELD_BYTES 8192

typedef struct compat_request {
    guard_loop *loop;
    SV *handle[STREAMS];    /* as the program gave them */
    SV *env;                /* a reference to a hash */
    SV *stream[STREAMS];    /* what is tied: FCGI::Stream objects */
    IO *bound[STREAMS];     /* what it is tied to, or NULL */
    SV *held[STREAMS];      /* printed, and not yet given to the library */
    bool closed[STREAMS];
    int socket;
    IV flags;
    bool accepted;
    bool ahead;             /* found while the worker looked whether it may end; the next Accept takes it */
    bool cgi;               /* not FastCGI: one turn with the handles and environment as they are */
    int holders;            /* the FCGI object and its streams */
    struct compat_request *next;
#ifdef MULTIPLICITY
    void *interpreter;
#endif
} compat_request;

typedef struct {
    compat_request *request;
    int which;
} compat_stream;

/* All of them, to end what is open when the interpreter ends; guarded by perl's own lock for threads. */
static compat_request *all_requests = NULL;
#ifdef USE_ITHREADS
static perl_mutex all_requests_lock;
#define LOCK_REQUESTS MUTEX_LOCK(&all_requests_lock)
#define UNLOCK_REQUESTS MUTEX_UNLOCK(&all_requests_lock)
#else
#define LOCK_REQUESTS
#define UNLOCK_REQUESTS
#endif

static void compat_release(pTHX_ compat_request *request)
{
    int at;
    compat_request **link;
    if (--request->holders > 0) return;
    LOCK_REQUESTS;
    for (link = &all_requests; *link; link = &(*link)->next) {
        if (*link == request) {
            *link = request->next;
            break;
        }
    }
    UNLOCK_REQUESTS;
    for (at = 0; at < STREAMS; at++) {
        SvREFCNT_dec(request->handle[at]);
        SvREFCNT_dec(request->held[at]);
    }
    SvREFCNT_dec(request->env);
    loop_release(aTHX_ request->loop);
    Safefree(request);
}

static IO *io_of(pTHX_ SV *handle)
{
    SV *target = SvROK(handle) ? SvRV(handle) : handle;
    if (isGV_with_GP(target)) return GvIOn((GV *)target);
    return SvTYPE(target) == SVt_PVIO ? (IO *)target : sv_2io(handle);
}

static void compat_detach(pTHX_ compat_request *request)
{
    int at;
    for (at = 0; at < STREAMS; at++) {
        IO *io = request->bound[at];
        MAGIC *tie;
        if (!io) continue;
        request->bound[at] = NULL;
        tie = SvTIED_mg((SV *)io, PERL_MAGIC_tiedscalar);
        /* Unless the program has tied it to something else since. */
        if (tie && tie->mg_obj && SvROK(tie->mg_obj) && request->stream[at] && SvRV(tie->mg_obj) == SvRV(request->stream[at]))
            sv_unmagic((SV *)io, PERL_MAGIC_tiedscalar);
        SvREFCNT_dec((SV *)io);
    }
}

static void compat_attach(pTHX_ compat_request *request)
{
    int at;
    for (at = 0; at < STREAMS; at++) {
        IO *io = io_of(aTHX_ request->handle[at]);
        if (request->bound[at] || !request->stream[at]) continue;
        sv_unmagic((SV *)io, PERL_MAGIC_tiedscalar);
        sv_magic((SV *)io, request->stream[at], PERL_MAGIC_tiedscalar, NULL, 0);
        request->bound[at] = (IO *)SvREFCNT_inc((SV *)io);
    }
}

/* Gives what is held of one stream to the library. FALSE when nobody takes it. */
static bool release_held(compat_request *request, int which)
{
    guard_loop *loop = request->loop;
    SV *held = request->held[which];
    int64_t done;
    if (!SvCUR(held)) return TRUE;
    done = which == ERR_STREAM
        ? fcgiguard_request_write_error(loop->request, (const uint8_t *)SvPVX(held), SvCUR(held), loop->error)
        : fcgiguard_request_write(loop->request, (const uint8_t *)SvPVX(held), SvCUR(held), loop->error);
    SvCUR_set(held, 0);
    return done >= 0;
}

/* Errors first: a web server that has all of a short answer may not look at what comes behind it. */
static void release_all(compat_request *request)
{
    if (!request->loop->request || is_inherited(request->loop)) return;
    (void)release_held(request, ERR_STREAM);
    (void)release_held(request, OUT_STREAM);
}

static void compat_flush(compat_request *request)
{
    if (!request->accepted || !request->loop->request || is_inherited(request->loop)) return;
    release_all(request);
    (void)fcgiguard_request_flush(request->loop->request, request->loop->error);
}

static void compat_finish(pTHX_ compat_request *request)
{
    if (!request->accepted) return;
    release_all(request);
    request->accepted = FALSE;
    compat_detach(aTHX_ request);
    if (request->loop->request) loop_drop_request(request->loop);
}

/* When the interpreter ends, before objects are destroyed: what a program printed before it died goes out, and its handles
 * are its own again for destructors that print. */
static void compat_end(pTHX_ void *unused)
{
    compat_request *request, *next;
    PERL_UNUSED_VAR(unused);
    LOCK_REQUESTS;
    request = all_requests;
    UNLOCK_REQUESTS;
    for (; request; request = next) {
        next = request->next;
#ifdef MULTIPLICITY
        if (request->interpreter != (void *)aTHX) continue;
#endif
        compat_finish(aTHX_ request);
    }
}

/* The managed worker that this process is (FCGI::Guard::ProcManager): responders use its line and lifeline, and where its class
 * has a say, `ask` is called with what happened. */
static struct {
    fcgiguard_worker *worker;
    SV *holder;             /* keeps the worker alive */
    SV *ask;
    unsigned fork;
    bool open;              /* a request was accepted and is not counted yet */
    bool counts;            /* ask before the end of each request, whether it is the last */
#ifdef MULTIPLICITY
    void *interpreter;
#endif
} managed;

static bool is_managed(void)
{
    return managed.worker && managed.fork == fork_count;
}

/* Asks the worker's class; FALSE where there is none, as in another thread. May die, and may end the process. */
static bool ask_manager(pTHX_ const char *what, const char *text)
{
    dSP;
    bool answer;
    if (!is_managed()) return FALSE;
#ifdef MULTIPLICITY
    if (managed.interpreter != (void *)aTHX) return FALSE;
#endif
    ENTER;
    SAVETMPS;
    PUSHMARK(SP);
    mXPUSHp(what, strlen(what));
    mXPUSHp(text, strlen(text));
    PUTBACK;
    (void)call_sv(managed.ask, G_SCALAR);
    SPAGAIN;
    answer = cBOOL(SvTRUE(TOPs));
    (void)POPs;
    PUTBACK;
    FREETMPS;
    LEAVE;
    return answer;
}

/* Before the end of a request that nobody has counted: what the class says makes this answer the last. */
static void count_request(pTHX)
{
    if (managed.open && ask_manager(aTHX_ "done", "")) fcgiguard_responder_leave_all();
}

static volatile sig_atomic_t asked_to_leave = 0;

static void on_leave(int signo)
{
    PERL_UNUSED_VAR(signo);
    asked_to_leave = 1;
    if (managed.worker) fcgiguard_responder_leave_all();
}

static volatile sig_atomic_t pipe_came = 0;

static void on_pipe(int signo)
{
    PERL_UNUSED_VAR(signo);
    pipe_came = 1;
}

/* TERM and USR1 let the request in hand end, and PIPE kills nobody, as programs on FCGI.pm are used to. Only where nothing
 * was set: a handler in %SIG, before or after, is the program's. Not restarted, so that a wait ends. */
static void take_signals(void)
{
    static const int numbers[] = { SIGTERM, SIGUSR1, SIGPIPE };
    size_t at;
    for (at = 0; at < sizeof numbers / sizeof *numbers; at++) {
        struct sigaction now;
        if (sigaction(numbers[at], NULL, &now) != 0 || (now.sa_flags & SA_SIGINFO) || now.sa_handler != SIG_DFL) continue;
        Zero(&now, 1, struct sigaction);
        sigemptyset(&now.sa_mask);
        now.sa_handler = numbers[at] == SIGPIPE ? on_pipe : on_leave;
        (void)sigaction(numbers[at], &now, NULL);
    }
}

/* Makes the responder of this process, at its first accept: 1, 0 if this is no FastCGI socket, or a negative code. */
static int32_t compat_open(compat_request *request)
{
    guard_loop *loop = request->loop;
    if (loop->responder && !is_inherited(loop)) return 1;
    loop_close(loop);
    if (!fcgiguard_responder_is_fastcgi(request->socket)) return 0;
    loop->responder = fcgiguard_responder_new();
    loop->fork = fork_count;
    take_signals();
    if (is_managed()) return fcgiguard_responder_attach(loop->responder, request->socket, managed.worker, loop->error) + 1;
    loop->signalled = &asked_to_leave;
    loop->passed = &pipe_came;
    /* Descriptor 0 joins the manager that started this program. */
    return request->socket == 0 ? fcgiguard_responder_open(loop->responder, NULL, loop->error) + 1
                                : fcgiguard_responder_attach(loop->responder, request->socket, NULL, loop->error) + 1;
}

/* A request was found: its params and streams are the program's now. */
static void compat_begin(pTHX_ compat_request *request)
{
    static const char *const roles[] = { "", "RESPONDER", "AUTHORIZER", "FILTER" };
    guard_loop *loop = request->loop;
    HV *env = (HV *)SvRV(request->env);
    int32_t role = fcgiguard_request_role(loop->request);
    loop_params(aTHX_ loop, env, env == GvHV(PL_envgv), roles[role >= 1 && role <= 3 ? role : 0]);
    Zero(request->closed, STREAMS, bool);
    SvCUR_set(request->held[OUT_STREAM], 0);
    SvCUR_set(request->held[ERR_STREAM], 0);
    request->accepted = TRUE;
    compat_attach(aTHX_ request);
}

/* In a managed worker: as loop_accept, but it does not end by a signal that does not mean to leave, and not by a failure that the
 * class bears. When it is to leave, what has come on kept connections is still served. */
static int32_t managed_accept(pTHX_ compat_request *request)
{
    guard_loop *loop = request->loop;
    int32_t found;
    for (;;) {
        if (loop->leave) return 0;
        found = compat_open(request);
        if (found == 0) return 0;
        if (found > 0) found = loop_accept(aTHX_ loop, FALSE);
        if (found == 1) {
            managed.open = TRUE;
            return 1;
        }
        if (found == 0) {
            (void)ask_manager(aTHX_ "left", "");
            return 2;
        }
        if (found == 2) {
            if (ask_manager(aTHX_ "signal", "")) fcgiguard_responder_leave_all();
        } else {
            /* The message is copied by the call, and the next try writes another. */
            if (!ask_manager(aTHX_ "failed", fcgiguard_error_message(loop->error))) return found;
        }
    }
}

/* 0, or -1: leave, or a signal came. */
static int compat_accept(pTHX_ compat_request *request)
{
    guard_loop *loop = request->loop;
    int32_t found;

    if (managed.open && is_managed()) count_request(aTHX);
    compat_finish(aTHX_ request);
    if (request->ahead && !is_inherited(loop)) {
        request->ahead = FALSE;
        managed.open = TRUE;
        compat_begin(aTHX_ request);
        return 0;
    }
    if (is_managed() && (request->socket != 0 || fcgiguard_responder_is_fastcgi(0))) {
        found = managed_accept(aTHX_ request);
    } else {
        if (loop->leave || asked_to_leave) return -1;
        found = compat_open(request);
        if (found == 0) {
            if (request->cgi || request->socket != 0) return -1;
            request->cgi = TRUE;
            return 0;
        }
        if (found > 0) found = loop_accept(aTHX_ loop, !(request->flags & FAIL_ON_SIGNAL));
    }
    if (found == 1) {
        compat_begin(aTHX_ request);
        return 0;
    }
    if (found == 2) {
        SETERRNO(EINTR, 0);
    } else if (found < 0) {
        /* Only what the system lacks comes here, never a peer's fault: it should be seen. */
        warn("FCGI: accept: %s\n", fcgiguard_error_message(loop->error));
    }
    return -1;
}

/* Every request of this worker ends. TRUE when something is left to serve: its connection brought the next one already, or is
 * still being looked at. */
static bool compat_wind_up(pTHX)
{
    compat_request *request, *next;
    bool left = FALSE;
    fcgiguard_responder_leave_all();
    LOCK_REQUESTS;
    request = all_requests;
    UNLOCK_REQUESTS;
    for (; request; request = next) {
        guard_loop *loop = request->loop;
        int32_t found;
        next = request->next;
#ifdef MULTIPLICITY
        if (request->interpreter != (void *)aTHX) continue;
#endif
        compat_finish(aTHX_ request);
        if (!loop->responder || is_inherited(loop)) continue;
        if (!request->ahead) {
            loop_forget(loop);
            found = fcgiguard_responder_next(loop->responder, &loop->request, loop->error);
            request->ahead = found == 1;
            left |= found == 2;
        }
        left |= request->ahead;
    }
    return left;
}

/* The stream's loop while its request is in hand and the stream is not closed; else NULL. */
static guard_loop *stream_loop(compat_stream *stream)
{
    compat_request *request = stream->request;
    return request->accepted && !request->closed[stream->which] && request->loop->request ? request->loop : NULL;
}

/* The bytes of a string as perl's print would send them: a character that is no byte is warned of (category utf8, on by
 * default), and the string goes out as UTF-8. */
static const char *stream_bytes(pTHX_ SV *sv, STRLEN *len, const char *what)
{
    /* What is no plain string yet (a number, an object, a tied variable) is made one once. */
    if (!SvPOK(sv) || SvGMAGICAL(sv)) {
        STRLEN size;
        const char *text = SvPV_const(sv, size);
        sv = newSVpvn_flags(text, size, SVs_TEMP | (SvUTF8(sv) ? SVf_UTF8 : 0));
    }
    if (DO_UTF8(sv)) {
        SV *copy = sv_2mortal(newSVsv(sv));
        if (sv_utf8_downgrade(copy, TRUE)) return SvPV_const(copy, *len);
        if (ckWARN_d(WARN_UTF8)) Perl_warner(aTHX_ packWARN(WARN_UTF8), "Wide character in FCGI::Stream::%s", what);
    }
    return SvPV_const(sv, *len);
}

/* In a forked child: to the handle below. */
static bool print_below(pTHX_ compat_stream *stream, const char *bytes, STRLEN len)
{
    IO *io = stream->request->bound[stream->which];
    PerlIO *below = io ? IoOFP(io) : NULL;
    return below && PerlIO_write(below, bytes, len) == (SSize_t)len && PerlIO_flush(below) == 0;
}

/* Takes bytes to be sent: TRUE, or FALSE when nobody takes them. */
static bool stream_send(pTHX_ compat_stream *stream, guard_loop *loop, const char *bytes, STRLEN len)
{
    compat_request *request = stream->request;
    int which = stream->which;
    SV *held = request->held[which];
    if (which == IN_STREAM) return FALSE;
    if (is_inherited(loop)) return print_below(aTHX_ stream, bytes, len);
    if (SvCUR(held) + len > HELD_BYTES && !release_held(request, which)) return FALSE;
    if (len <= HELD_BYTES) {
        sv_catpvn_nomg(held, bytes, len);
        return TRUE;
    }
    return (which == ERR_STREAM ? fcgiguard_request_write_error(loop->request, (const uint8_t *)bytes, len, loop->error)
                                : fcgiguard_request_write(loop->request, (const uint8_t *)bytes, len, loop->error)) >= 0;
}

/* perl's own rule: $| of the selected handle. */
static bool wants_flush(pTHX)
{
    IO *io = PL_defoutgv ? GvIO(PL_defoutgv) : NULL;
    return io && (IoFLAGS(io) & IOf_FLUSH);
}
