MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::FCGI  PREFIX = fcgi_

BOOT:
{
    static bool made = FALSE;
#ifdef USE_ITHREADS
    if (!made) MUTEX_INIT(&all_requests_lock);
#endif
    if (!made) (void)pthread_atfork(NULL, NULL, on_fork);
    made = TRUE;
    call_atexit(compat_end, NULL);
}

SV *
fcgi_RequestX(in, out, err, env, socket, flags)
    SV *in
    SV *out
    SV *err
    SV *env
    int socket
    IV flags
  PREINIT:
    compat_request *request;
    compat_stream *stream;
    int at;
  CODE:
    if (!SvROK(env) || SvTYPE(SvRV(env)) != SVt_PVHV) croak("the environment is not a reference to a hash");
    Newxz(request, 1, compat_request);
    request->loop = loop_new();
    request->handle[IN_STREAM] = newSVsv(in);
    request->handle[OUT_STREAM] = newSVsv(out);
    request->handle[ERR_STREAM] = newSVsv(err);
    request->env = newSVsv(env);
    request->socket = socket;
    request->flags = flags;
    request->holders = 1;
#ifdef MULTIPLICITY
    request->interpreter = (void *)aTHX;
#endif
    for (at = 0; at < STREAMS; at++) {
        request->held[at] = newSVpvs("");
        Newx(stream, 1, compat_stream);
        stream->request = request;
        stream->which = at;
        request->holders++;
        request->stream[at] = sv_setref_pv(newSV(0), "FCGI::Stream", stream);
    }
    LOCK_REQUESTS;
    request->next = all_requests;
    all_requests = request;
    UNLOCK_REQUESTS;
    RETVAL = sv_setref_pv(newSV(0), "FCGI", request);
  OUTPUT:
    RETVAL

int
fcgi_Accept(request)
    FCGI request
  CODE:
    RETVAL = compat_accept(aTHX_ request);
  OUTPUT:
    RETVAL

void
fcgi_Finish(request)
    FCGI request
  CODE:
    if (managed.counts && request->accepted && is_managed()) count_request(aTHX);
    compat_finish(aTHX_ request);

void
fcgi_Flush(request)
    FCGI request
  PPCODE:
    compat_flush(request);
    XSRETURN_EMPTY;

void
fcgi_LastCall(request)
    FCGI request
  PPCODE:
    request->loop->leave = TRUE;
    XSRETURN_EMPTY;

void
fcgi_Attach(request)
    FCGI request
  PPCODE:
    if (request->accepted && request->loop->request) compat_attach(aTHX_ request);
    XSRETURN_EMPTY;

void
fcgi_Detach(request)
    FCGI request
  PPCODE:
    if (request->accepted) compat_detach(aTHX_ request);
    XSRETURN_EMPTY;

void
fcgi_GetHandles(request)
    FCGI request
  PREINIT:
    int at;
  PPCODE:
    EXTEND(SP, STREAMS);
    for (at = 0; at < STREAMS; at++) mPUSHs(newSVsv(request->handle[at]));

SV *
fcgi_GetEnvironment(request)
    FCGI request
  CODE:
    RETVAL = newSVsv(request->env);
  OUTPUT:
    RETVAL

int
fcgi_IsFastCGI(request)
    FCGI request
  CODE:
    RETVAL = request->accepted || fcgiguard_responder_is_fastcgi(request->socket);
  OUTPUT:
    RETVAL

int
fcgi_StartFilterData(request)
    FCGI request
  PREINIT:
    guard_loop *loop;
  CODE:
    loop = request->loop;
    RETVAL = -1;
    if (request->accepted && loop->request && fcgiguard_request_role(loop->request) == 3) {
        loop->data = TRUE;
        loop->ahead_at = loop->ahead_end = 0;
        RETVAL = 0;
    }
  OUTPUT:
    RETVAL

void
fcgi__manage(worker, ask, counts)
    SV *worker
    SV *ask
    bool counts
  CODE:
    if (!sv_derived_from(worker, "FCGI::Guard::Worker"))
        throw_message(aTHX_ INVALID_ARGUMENT, "worker is not an FCGI::Guard::Worker");
    SvREFCNT_dec(managed.holder);
    SvREFCNT_dec(managed.ask);
    managed.worker = INT2PTR(fcgiguard_worker *, SvIV(SvRV(worker)));
    managed.holder = newSVsv(worker);
    managed.ask = newSVsv(ask);
    managed.fork = fork_count;
    managed.open = FALSE;
    managed.counts = counts;
#ifdef MULTIPLICITY
    managed.interpreter = (void *)aTHX;
#endif

bool
fcgi__counted()
  CODE:
    RETVAL = managed.open;
    managed.open = FALSE;
  OUTPUT:
    RETVAL

void
fcgi__leave()
  CODE:
    fcgiguard_responder_leave_all();

bool
fcgi__wind_up()
  CODE:
    RETVAL = compat_wind_up(aTHX);
  OUTPUT:
    RETVAL

void
fcgi__sockets()
  PREINIT:
    compat_request *request;
  PPCODE:
    LOCK_REQUESTS;
    for (request = all_requests; request; request = request->next) {
#ifdef MULTIPLICITY
        if (request->interpreter != (void *)aTHX) continue;
#endif
        mXPUSHi(request->socket);
    }
    UNLOCK_REQUESTS;

void
fcgi_DESTROY(request)
    FCGI request
  PREINIT:
    int at;
    SV *stream;
  CODE:
    compat_finish(aTHX_ request);
    for (at = 0; at < STREAMS; at++) {
        stream = request->stream[at];
        request->stream[at] = NULL;
        SvREFCNT_dec(stream);
    }
    compat_release(aTHX_ request);

MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::FCGI::Stream  PREFIX = stream_

SV *
stream_PRINT(stream, ...)
    FCGI::Stream stream
  PREINIT:
    guard_loop *loop;
    int at;
    STRLEN len;
    const char *bytes;
    bool done;
  CODE:
    loop = stream_loop(stream);
    done = loop != NULL;
    for (at = 1; at < items && done; at++) {
        bytes = stream_bytes(aTHX_ ST(at), &len, "PRINT");
        done = stream_send(aTHX_ stream, loop, bytes, len);
    }
    if (done && wants_flush(aTHX)) compat_flush(stream->request);
    RETVAL = done ? &PL_sv_yes : &PL_sv_undef;
  OUTPUT:
    RETVAL

SV *
stream_PRINTF(stream, format, ...)
    FCGI::Stream stream
    SV *format
  PREINIT:
    guard_loop *loop;
    SV *text;
    STRLEN len;
    const char *bytes;
    bool done, tainted = FALSE;
  CODE:
    loop = stream_loop(stream);
    done = loop != NULL;
    if (done) {
        text = sv_2mortal(newSVpvs(""));
        bytes = SvPV_const(format, len);
        if (DO_UTF8(format)) SvUTF8_on(text);
        sv_vsetpvfn(text, bytes, len, NULL, items > 2 ? &ST(2) : NULL, items - 2, &tainted);
        bytes = stream_bytes(aTHX_ text, &len, "PRINTF");
        done = stream_send(aTHX_ stream, loop, bytes, len);
        if (done && wants_flush(aTHX)) compat_flush(stream->request);
    }
    RETVAL = done ? &PL_sv_yes : &PL_sv_undef;
  OUTPUT:
    RETVAL

SV *
stream_WRITE(stream, buffer, length = NULL, offset = 0)
    FCGI::Stream stream
    SV *buffer
    SV *length
    IV offset
  PREINIT:
    guard_loop *loop;
    STRLEN len;
    IV count;
    const char *bytes;
  CODE:
    loop = stream_loop(stream);
    RETVAL = &PL_sv_undef;
    if (loop) {
        bytes = stream_bytes(aTHX_ buffer, &len, "WRITE");
        count = length && SvOK(length) ? SvIV(length) : (IV)len;
        if (offset < 0) offset += (IV)len;
        if (offset >= 0 && offset <= (IV)len && count >= 0) {
            if (count > (IV)len - offset) count = (IV)len - offset;
            if (stream_send(aTHX_ stream, loop, bytes + offset, (STRLEN)count)) {
                if (wants_flush(aTHX)) compat_flush(stream->request);
                RETVAL = newSViv(count);
            }
        }
    }
  OUTPUT:
    RETVAL

SV *
stream_READ(stream, buffer, length, offset = 0)
    FCGI::Stream stream
    SV *buffer
    IV length
    IV offset
  PREINIT:
    guard_loop *loop;
    int64_t count;
  CODE:
    loop = stream->which == IN_STREAM ? stream_loop(stream) : NULL;
    RETVAL = &PL_sv_undef;
    if (SvUTF8(buffer) && !sv_utf8_downgrade(buffer, TRUE)) {
        if (ckWARN_d(WARN_UTF8)) Perl_warner(aTHX_ packWARN(WARN_UTF8), "Wide character in FCGI::Stream::READ");
        SvUTF8_off(buffer);
    }
    if (loop) {
        count = loop_read_into(aTHX_ loop, buffer, length, offset);
        if (count >= 0) RETVAL = newSViv((IV)count);
        else SETERRNO(ECONNRESET, 0);
    } else {
        SETERRNO(EBADF, RMS_IFI);
    }
  OUTPUT:
    RETVAL

void
stream_READLINE(stream)
    FCGI::Stream stream
  PREINIT:
    guard_loop *loop;
    SV *line;
    bool all;
  PPCODE:
    loop = stream->which == IN_STREAM ? stream_loop(stream) : NULL;
    all = GIMME_V == G_ARRAY;
    for (;;) {
        line = sv_2mortal(newSVpvs(""));
        if (!loop || loop_line(aTHX_ loop, line) <= 0) break;
        if (TAINTING_get) SvTAINTED_on(line);
        XPUSHs(line);
        if (!all) XSRETURN(1);
    }
    if (!all) XPUSHs(&PL_sv_undef);

SV *
stream_GETC(stream)
    FCGI::Stream stream
  PREINIT:
    guard_loop *loop;
  CODE:
    loop = stream->which == IN_STREAM ? stream_loop(stream) : NULL;
    RETVAL = loop && loop_peek(aTHX_ loop) > 0 ? newSVpvn(loop->ahead + loop->ahead_at++, 1) : &PL_sv_undef;
  OUTPUT:
    RETVAL

bool
stream_EOF(stream, ...)
    FCGI::Stream stream
  PREINIT:
    guard_loop *loop;
  CODE:
    loop = stream->which == IN_STREAM ? stream_loop(stream) : NULL;
    RETVAL = !loop || loop_peek(aTHX_ loop) <= 0;
  OUTPUT:
    RETVAL

bool
stream_CLOSE(stream)
    FCGI::Stream stream
  CODE:
    RETVAL = stream_loop(stream) != NULL;
    stream->request->closed[stream->which] = TRUE;
  OUTPUT:
    RETVAL

int
stream_FILENO(stream)
    FCGI::Stream stream
  CODE:
    /* Defined, so that the handle counts as open; no descriptor, since there is none. */
    PERL_UNUSED_VAR(stream);
    RETVAL = -1;
  OUTPUT:
    RETVAL

bool
stream_BINMODE(stream, ...)
    FCGI::Stream stream
  CODE:
    /* Bytes they are. */
    PERL_UNUSED_VAR(stream);
    RETVAL = TRUE;
  OUTPUT:
    RETVAL

void
stream_DESTROY(stream)
    FCGI::Stream stream
  CODE:
    compat_release(aTHX_ stream->request);
    Safefree(stream);
