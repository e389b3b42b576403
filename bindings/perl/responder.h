/* The accept loop in Perl's terms, shared by FCGI::Guard::Responder (Responder.xs) and the FCGI interface (Compat.xs).
 *
 * A loop belongs to the process that first accepted with it: a library handle cannot be used after fork, so it is made at
 * the first accept in each process. Params go into a hash in one call, and values of the request before are overwritten
 * in place where nobody else holds them: web servers send the same names again and again.
 */

#define KEPT_NAMES 64       /* names whose shared key is kept between requests; further ones are looked up */
#define READ_AHEAD 8192     /* for lines, single characters and the question for the end */

typedef struct {
    fcgiguard_responder *responder;
    fcgiguard_request *request; /* in hand, or NULL */
    fcgiguard_error *error;
    unsigned fork;          /* fork_count when `responder` was made */
    UV turn;                /* counts requests, so that an old object is told from the one in hand */
    SV *kept[KEPT_NAMES];   /* names as shared keys, by their place on the wire */
    char *ahead;            /* body bytes read but not yet taken */
    STRLEN ahead_at, ahead_end;
    HV *spare;              /* a hash of params to use again */
    volatile bool leave;    /* no further request is to be accepted */
    bool data;              /* a filter reads its second stream */
    const volatile sig_atomic_t *signalled; /* set by a handler in C: as leave; or NULL */
    volatile sig_atomic_t *passed; /* set by a handler in C that does nothing but end a wait; or NULL */
    int holders;            /* Perl objects that point here */
} guard_loop;

/* Goes up in every child of a fork, so that an inherited loop is known without a system call. */
static volatile unsigned fork_count = 0;

static void on_fork(void)
{
    fork_count++;
}

static bool is_inherited(const guard_loop *loop)
{
    return loop->fork != fork_count;
}

static guard_loop *loop_new(void)
{
    guard_loop *loop;
    Newxz(loop, 1, guard_loop);
    loop->error = fcgiguard_error_new();
    loop->holders = 1;
    return loop;
}

/* Frees the library's handles. In another process than their maker's that touches nothing the maker uses. */
static void loop_close(guard_loop *loop)
{
    fcgiguard_request_free(loop->request);
    fcgiguard_responder_free(loop->responder);
    loop->request = NULL;
    loop->responder = NULL;
    loop->ahead_at = loop->ahead_end = 0;
}

static void loop_release(pTHX_ guard_loop *loop)
{
    int at;
    if (--loop->holders > 0) return;
    loop_close(loop);
    fcgiguard_error_free(loop->error);
    for (at = 0; at < KEPT_NAMES; at++) SvREFCNT_dec(loop->kept[at]);
    SvREFCNT_dec(loop->spare);
    Safefree(loop->ahead);
    Safefree(loop);
}

/* Dies with an FCGI::Guard::Error made of a code and a message; does not come back. */
static void throw_message(pTHX_ int32_t code, const char *message)
{
    const char *name = fcgiguard_code_name(code);
    SV *object;
    dSP;

    ENTER;
    PUSHMARK(SP);
    EXTEND(SP, 3);
    mPUSHi(code);
    mPUSHp(name ? name : "unknown", name ? strlen(name) : 7);
    mPUSHp(message, strlen(message));
    PUTBACK;
    call_pv("FCGI::Guard::Error::_make", G_SCALAR);
    SPAGAIN;
    object = SvREFCNT_inc(POPs);
    PUTBACK;
    LEAVE;
    croak_sv(sv_2mortal(object));
}

static void loop_throw(pTHX_ guard_loop *loop, int64_t code)
{
    throw_message(aTHX_ (int32_t)code, fcgiguard_error_message(loop->error));
}

/* The table's numbers that are told apart here; they are never reused. */
enum { INVALID_ARGUMENT = -102, NO_REQUEST = -701, INTERNAL = -901 };

/* Whether a failed call was the program's fault and not the peer's. */
static bool is_misuse(int64_t code)
{
    return (code <= -101 && code >= -109) || code == NO_REQUEST || code == INTERNAL;
}

/* What belongs to the request before. The library finishes it at the next accept. */
static void loop_forget(guard_loop *loop)
{
    loop->turn++;
    loop->data = FALSE;
    loop->ahead_at = loop->ahead_end = 0;
    fcgiguard_request_free(loop->request);
    loop->request = NULL;
}

static void on_leave(int signo);
static void on_pipe(int signo);

/* After a wait that was interrupted and no signal is pending in perl: whether it may have been a handler that does not go by
 * perl's queue (POSIX::sigaction's are called at once, FCGI::ProcManager has such) or ours for PIPE. Else the process was stopped
 * and continued, or a debugger came. */
static bool handler_ran(guard_loop *loop)
{
    int signo;
    if (loop->passed && *loop->passed) return TRUE;
    for (signo = 1; signo < 32; signo++) {
        struct sigaction now;
        if (sigaction(signo, NULL, &now) != 0 || now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN) continue;
        if (now.sa_handler == on_leave || now.sa_handler == on_pipe) continue;
        if ((void (*)(void))now.sa_handler != (void (*)(void))PL_csighandlerp) return TRUE;
    }
    return FALSE;
}

/* Waits for a request: 1, 0 to leave, 2 when a signal came (its handler has run), or a negative code. `patient`: a signal
 * does not end the wait, unless its handler dies or sets loop->leave. */
static int32_t loop_accept(pTHX_ guard_loop *loop, bool patient)
{
    int32_t found;
    loop_forget(loop);
    for (;;) {
        if (PL_sig_pending) {
            PERL_ASYNC_CHECK();
            if (!patient) return 2;
        }
        if (loop->leave || (loop->signalled && *loop->signalled)) return 0;
        if (loop->passed) *loop->passed = 0;
        found = fcgiguard_responder_accept_until_signal(loop->responder, &loop->request, loop->error);
        if (found != 2) return found;
        if (!PL_sig_pending && !handler_ran(loop)) continue;
        PERL_ASYNC_CHECK();
        if (!patient) return 2;
    }
}

/* Ends the request in hand: 1, 0 if the web server did not get all of it, or a negative code of misuse. */
static int32_t loop_finish(guard_loop *loop, UV app_status)
{
    int32_t code;
    fcgiguard_request *request = loop->request;
    if (!request) return NO_REQUEST;
    loop->request = NULL;
    loop->ahead_at = loop->ahead_end = 0;
    if (app_status) fcgiguard_request_set_app_status(request, (uint32_t)app_status, NULL);
    code = fcgiguard_request_finish(request, loop->error);
    return code >= 0 ? 1 : is_misuse(code) ? code : 0;
}

/* As perl's print has it: true, or false when the web server did not get it; dies of misuse. */
static SV *loop_outcome(pTHX_ guard_loop *loop, int64_t code)
{
    if (is_misuse(code)) loop_throw(aTHX_ loop, code);
    return boolSV(code >= 0);
}

/* The request's object is gone before finish. In the process that has it that ends it; in another it is left alone. */
static void loop_drop_request(guard_loop *loop)
{
    if (!is_inherited(loop)) {
        (void)loop_finish(loop, 0);
    } else {
        fcgiguard_request_free(loop->request);
        loop->request = NULL;
    }
}

/* The bytes of a string; dies of a character that is none. */
static const char *bytes_of(pTHX_ SV *sv, STRLEN *len)
{
    if (SvUTF8(sv)) {
        sv = sv_2mortal(newSVsv(sv));
        if (!sv_utf8_downgrade(sv, TRUE))
            throw_message(aTHX_ INVALID_ARGUMENT, "wide character: encode text before printing it");
    }
    return SvPV_const(sv, *len);
}

/* An FCGI::Guard::Request. */
typedef struct {
    guard_loop *loop;
    UV turn;
    HV *params;
} guard_request;

static guard_loop *request_check(pTHX_ guard_request *request)
{
    guard_loop *loop = request->loop;
    if (request->turn != loop->turn || !loop->request) throw_message(aTHX_ NO_REQUEST, "this request is over");
    return loop;
}

/* Whether an element can be overwritten: a plain value of ours that nobody else points to. */
static bool is_plain(const SV *sv)
{
    return SvREFCNT(sv) == 1 && SvTYPE(sv) <= SVt_PVMG && !SvROK(sv) && !SvREADONLY(sv);
}

/* Puts a value under a name, in place if possible. `magical`: the hash is %ENV, whose elements carry the magic that tells
 * the C environment of later assignments. */
static void put_pair(pTHX_ HV *hash, SV *name, const fcgiguard_param *param, bool magical)
{
    const char *value = (const char *)param->value;
    STRLEN len = param->value_len;
    U32 sum = SvSHARED_HASH(name);
    HE *entry = hv_fetch_ent(hash, name, 0, sum);
    SV *sv;
    if (entry) {
        sv = HeVAL(entry);
        if (is_plain(sv) && (magical || SvTYPE(sv) < SVt_PVMG)) {
            sv_setpvn(sv, value, len);
            SvUTF8_off(sv);
            if (TAINTING_get) SvTAINTED_on(sv);
            if (magical) SvSETMAGIC(sv);
            return;
        }
    }
    sv = newSVpvn(value, len);
    if (TAINTING_get) SvTAINTED_on(sv);
    if (!hv_store_ent(hash, name, sv, sum)) SvREFCNT_dec(sv);
    else if (magical) SvSETMAGIC(sv);
}

/* The name as an SV with its hash sum: of the request before, if the same stands at the same place. */
static SV *kept_name(pTHX_ guard_loop *loop, size_t at, const fcgiguard_param *param)
{
    SV *name;
    if (at >= KEPT_NAMES) return sv_2mortal(newSVpvn_share((const char *)param->name, (I32)param->name_len, 0));
    name = loop->kept[at];
    if (name && SvCUR(name) == param->name_len && memEQ(SvPVX_const(name), param->name, param->name_len)) return name;
    SvREFCNT_dec(name);
    return loop->kept[at] = newSVpvn_share((const char *)param->name, (I32)param->name_len, 0);
}

/* A set of names, by the address of their shared key: equal names have the same one. */
#define NAME_SLOTS (4 * KEPT_NAMES)
typedef struct {
    const char *slot[NAME_SLOTS];
    size_t count;
} name_set;

static void name_set_add(name_set *set, const SV *name)
{
    const char *key = SvPVX_const(name);
    size_t at = (PTR2nat(key) >> 4) % NAME_SLOTS;
    while (set->slot[at] && set->slot[at] != key) at = (at + 1) % NAME_SLOTS;
    if (set->slot[at]) return;
    set->slot[at] = key;
    set->count++;
}

/* Makes `hash` have the params of the request in hand and nothing else: nothing of the request before may be seen, so if
 * it has another number of keys afterwards than there are different names, it is made again from nothing. The last of
 * equal names wins. `role`, if not NULL, is added as FCGI_ROLE. */
static void loop_params(pTHX_ guard_loop *loop, HV *hash, bool magical, const char *role)
{
    fcgiguard_param few[KEPT_NAMES], *params = few;
    int64_t count = fcgiguard_request_params(loop->request, params, KEPT_NAMES - 1, loop->error);
    bool in_place = HvUSEDKEYS(hash) > 0;
    size_t at, all;
    name_set names;

    if (count < 0) loop_throw(aTHX_ loop, count);
    if (count > KEPT_NAMES - 1) {
        Newx(params, count + 1, fcgiguard_param);
        SAVEFREEPV(params);
        count = fcgiguard_request_params(loop->request, params, (size_t)count, loop->error);
        if (count < 0) loop_throw(aTHX_ loop, count);
        in_place = FALSE;
        hv_clear(hash);
    }
    all = (size_t)count;
    if (role) {
        params[all].name = (const uint8_t *)"FCGI_ROLE";
        params[all].name_len = 9;
        params[all].value = (const uint8_t *)role;
        params[all].value_len = strlen(role);
        all++;
    }
    if (in_place) {
        Zero(&names, 1, name_set);
        for (at = 0; at < all; at++) {
            SV *name = kept_name(aTHX_ loop, at, &params[at]);
            name_set_add(&names, name);
            put_pair(aTHX_ hash, name, &params[at], magical);
        }
        if (HvUSEDKEYS(hash) == names.count) return;
        hv_clear(hash);
    }
    for (at = 0; at < all; at++) put_pair(aTHX_ hash, kept_name(aTHX_ loop, at, &params[at]), &params[at], magical);
}

/* Reads body bytes straight from the library: their number, 0 at the end, or a negative code. */
static int64_t loop_read_raw(guard_loop *loop, char *into, STRLEN len)
{
    return loop->data ? fcgiguard_request_read_data(loop->request, (uint8_t *)into, len, loop->error)
                      : fcgiguard_request_read(loop->request, (uint8_t *)into, len, loop->error);
}

/* As loop_read_raw, behind what was read ahead. */
static int64_t loop_read(guard_loop *loop, char *into, STRLEN len)
{
    STRLEN have = loop->ahead_end - loop->ahead_at;
    if (have == 0) return loop_read_raw(loop, into, len);
    if (have > len) have = len;
    Copy(loop->ahead + loop->ahead_at, into, have, char);
    loop->ahead_at += have;
    return (int64_t)have;
}

/* Makes at least one byte stand ahead: how many do, 0 at the end of the body, or a negative code. */
static int64_t loop_peek(pTHX_ guard_loop *loop)
{
    int64_t count;
    if (loop->ahead_at < loop->ahead_end) return (int64_t)(loop->ahead_end - loop->ahead_at);
    if (!loop->ahead) Newx(loop->ahead, READ_AHEAD, char);
    loop->ahead_at = loop->ahead_end = 0;
    count = loop_read_raw(loop, loop->ahead, READ_AHEAD);
    if (count > 0) loop->ahead_end = (STRLEN)count;
    return count;
}

/* Appends one line as $/ says (text, undef, a reference to a size, "" for paragraphs): 1, 0 at the end, or a code. */
static int64_t loop_line(pTHX_ guard_loop *loop, SV *line)
{
    SV *separator = PL_rs;
    const char *end = NULL;
    STRLEN end_len = 0, limit = 0;
    bool paragraph = FALSE;
    int64_t have;

    if (SvROK(separator)) {
        IV size = SvIV(SvRV(separator));
        if (size > 0) limit = (STRLEN)size;
    } else if (SvOK(separator)) {
        end = SvPV_const(separator, end_len);
        if (end_len == 0) {
            paragraph = TRUE;
            end = "\n\n";
            end_len = 2;
        }
    }
    if (paragraph) {
        /* Empty lines before a paragraph are not part of it. */
        while ((have = loop_peek(aTHX_ loop)) > 0 && loop->ahead[loop->ahead_at] == '\n') loop->ahead_at++;
    }
    while ((have = loop_peek(aTHX_ loop)) > 0) {
        const char *from = loop->ahead + loop->ahead_at;
        STRLEN take = (STRLEN)have;
        if (limit) {
            STRLEN room = limit - SvCUR(line);
            if (take > room) take = room;
            sv_catpvn(line, from, take);
            loop->ahead_at += take;
            if (SvCUR(line) == limit) return 1;
        } else if (!end) {
            sv_catpvn(line, from, take);
            loop->ahead_at += take;
        } else {
            /* Up to the separator's last byte, then look whether the rest of it stands before. */
            const char *last = (const char *)memchr(from, end[end_len - 1], take);
            if (last) take = (STRLEN)(last - from) + 1;
            sv_catpvn(line, from, take);
            loop->ahead_at += take;
            if (last && SvCUR(line) >= end_len && memEQ(SvEND(line) - end_len, end, end_len)) {
                while (paragraph && loop_peek(aTHX_ loop) > 0 && loop->ahead[loop->ahead_at] == '\n') loop->ahead_at++;
                return 1;
            }
        }
    }
    return have < 0 ? have : SvCUR(line) > 0;
}

/* perl's read(): `len` bytes, fewer only at the end, into `buffer` at `offset`. Their number, or a negative code; what
 * came before a failure stays in the buffer. */
static int64_t loop_read_into(pTHX_ guard_loop *loop, SV *buffer, IV len, IV offset)
{
    STRLEN had, start, got = 0;
    char *bytes;
    int64_t count = 0;

    if (len < 0) croak("Negative length");
    if (!SvOK(buffer)) sv_setpvs(buffer, "");
    (void)SvPVbyte_force(buffer, had);
    if (offset < 0) {
        if ((STRLEN)-offset > had) croak("Offset outside string");
        offset += (IV)had;
    }
    start = (STRLEN)offset;
    bytes = SvGROW(buffer, start + (STRLEN)len + 1);
    if (start > had) Zero(bytes + had, start - had, char);
    while (got < (STRLEN)len) {
        count = loop_read(loop, bytes + start + got, (STRLEN)len - got);
        if (count <= 0) break;
        got += (STRLEN)count;
    }
    SvCUR_set(buffer, start + got);
    *SvEND(buffer) = '\0';
    (void)SvPOK_only(buffer);
    if (TAINTING_get) SvTAINTED_on(buffer);
    SvSETMAGIC(buffer);
    return count < 0 ? count : (int64_t)got;
}
