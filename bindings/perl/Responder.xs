MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::Responder  PREFIX = responder_

FCGI::Guard::Responder
responder_new_handle()
  CODE:
    RETVAL = loop_new();
    RETVAL->responder = fcgiguard_responder_new();
    RETVAL->fork = fork_count;
  OUTPUT:
    RETVAL

void
responder_set(loop, name, value)
    FCGI::Guard::Responder loop
    const char *name
    const char *value
  PREINIT:
    int32_t code;
  CODE:
    code = fcgiguard_responder_set(loop->responder, name, value, loop->error);
    if (code < 0) loop_throw(aTHX_ loop, code);

void
responder_open(loop, address = NULL)
    FCGI::Guard::Responder loop
    const char *address
  PREINIT:
    int32_t code;
  CODE:
    code = fcgiguard_responder_open(loop->responder, address, loop->error);
    if (code < 0) loop_throw(aTHX_ loop, code);

void
responder_attach(loop, fd, worker = NULL)
    FCGI::Guard::Responder loop
    int fd
    SV *worker
  PREINIT:
    int32_t code;
    fcgiguard_worker *of = NULL;
  CODE:
    if (worker && SvOK(worker)) {
        if (!sv_derived_from(worker, "FCGI::Guard::Worker"))
            throw_message(aTHX_ INVALID_ARGUMENT, "worker is not an FCGI::Guard::Worker");
        of = INT2PTR(fcgiguard_worker *, SvIV(SvRV(worker)));
    }
    code = fcgiguard_responder_attach(loop->responder, fd, of, loop->error);
    if (code < 0) loop_throw(aTHX_ loop, code);

int
responder_fd(loop)
    FCGI::Guard::Responder loop
  CODE:
    RETVAL = fcgiguard_responder_fd(loop->responder, loop->error);
    if (RETVAL < 0) loop_throw(aTHX_ loop, RETVAL);
  OUTPUT:
    RETVAL

void
responder_leave(loop)
    FCGI::Guard::Responder loop
  CODE:
    loop->leave = TRUE;

SV *
responder_accept(loop)
    FCGI::Guard::Responder loop
  ALIAS:
    next = 1
  PREINIT:
    int32_t found;
    guard_request *request;
  CODE:
    if (ix == 1) {
        loop_forget(loop);
        found = loop->leave ? 0 : fcgiguard_responder_next(loop->responder, &loop->request, loop->error);
    } else {
        found = loop_accept(aTHX_ loop, TRUE);
    }
    if (found < 0) loop_throw(aTHX_ loop, found);
    if (found == 1) {
        Newx(request, 1, guard_request);
        request->loop = loop;
        request->turn = loop->turn;
        request->params = NULL;
        loop->holders++;
        RETVAL = sv_setref_pv(newSV(0), "FCGI::Guard::Request", request);
    } else {
        /* next: 0 when there is nothing now, undef when it is time to leave. */
        RETVAL = found == 2 ? newSViv(0) : &PL_sv_undef;
    }
  OUTPUT:
    RETVAL

void
responder_DESTROY(loop)
    FCGI::Guard::Responder loop
  CODE:
    loop_release(aTHX_ loop);

MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::Request  PREFIX = request_

int
request_role(request)
    FCGI::Guard::Request request
  CODE:
    RETVAL = fcgiguard_request_role(request_check(aTHX_ request)->request);
  OUTPUT:
    RETVAL

SV *
request_params(request)
    FCGI::Guard::Request request
  PREINIT:
    guard_loop *loop;
  CODE:
    if (!request->params) {
        loop = request_check(aTHX_ request);
        /* The hash of the request before, if nobody else has kept it. */
        if (loop->spare && SvREFCNT(loop->spare) == 1 && !SvOBJECT(loop->spare) && !SvRMAGICAL(loop->spare)) {
            request->params = loop->spare;
            loop->spare = NULL;
        } else {
            SvREFCNT_dec(loop->spare);
            loop->spare = NULL;
            request->params = newHV();
        }
        loop_params(aTHX_ loop, request->params, FALSE, NULL);
    }
    RETVAL = newRV_inc((SV *)request->params);
  OUTPUT:
    RETVAL

SV *
request_param(request, name)
    FCGI::Guard::Request request
    const char *name
  PREINIT:
    guard_loop *loop;
    const uint8_t *value;
    size_t len;
    int32_t found;
  CODE:
    loop = request_check(aTHX_ request);
    found = fcgiguard_request_param(loop->request, name, &value, &len, loop->error);
    if (found < 0) loop_throw(aTHX_ loop, found);
    RETVAL = found ? newSVpvn((const char *)value, len) : &PL_sv_undef;
    if (found && TAINTING_get) SvTAINTED_on(RETVAL);
  OUTPUT:
    RETVAL

IV
request_read(request, buffer, len, offset = 0)
    FCGI::Guard::Request request
    SV *buffer
    IV len
    IV offset
  PREINIT:
    guard_loop *loop;
  CODE:
    loop = request_check(aTHX_ request);
    RETVAL = loop_read_into(aTHX_ loop, buffer, len, offset);
    if (RETVAL < 0) loop_throw(aTHX_ loop, RETVAL);
  OUTPUT:
    RETVAL

IV
request_read_data(request, buffer, len)
    FCGI::Guard::Request request
    SV *buffer
    IV len
  PREINIT:
    guard_loop *loop;
    char *bytes;
  CODE:
    loop = request_check(aTHX_ request);
    if (len < 0) croak("Negative length");
    sv_setpvs(buffer, "");
    bytes = SvGROW(buffer, (STRLEN)len + 1);
    RETVAL = fcgiguard_request_read_data(loop->request, (uint8_t *)bytes, (size_t)len, loop->error);
    if (RETVAL < 0) loop_throw(aTHX_ loop, RETVAL);
    SvCUR_set(buffer, (STRLEN)RETVAL);
    *SvEND(buffer) = '\0';
    (void)SvPOK_only(buffer);
    if (TAINTING_get) SvTAINTED_on(buffer);
    SvSETMAGIC(buffer);
  OUTPUT:
    RETVAL

SV *
request_getline(request)
    FCGI::Guard::Request request
  PREINIT:
    guard_loop *loop;
    int64_t found;
  CODE:
    loop = request_check(aTHX_ request);
    RETVAL = newSVpvs("");
    found = loop_line(aTHX_ loop, RETVAL);
    if (found <= 0) {
        SvREFCNT_dec(RETVAL);
        RETVAL = &PL_sv_undef;
        if (found < 0) loop_throw(aTHX_ loop, found);
    } else if (TAINTING_get) {
        SvTAINTED_on(RETVAL);
    }
  OUTPUT:
    RETVAL

SV *
request_print(request, ...)
    FCGI::Guard::Request request
  ALIAS:
    write = 1
    error = 2
  PREINIT:
    guard_loop *loop;
    int at;
    SV *text;
    int64_t done = 0;
    STRLEN len;
    const char *bytes;
  CODE:
    loop = request_check(aTHX_ request);
    if (ix == 2 && items > 2) {
        /* One record: web servers make a log entry of each. */
        text = sv_2mortal(newSVpvs(""));
        for (at = 1; at < items; at++) {
            bytes = bytes_of(aTHX_ ST(at), &len);
            sv_catpvn_nomg(text, bytes, len);
        }
        done = fcgiguard_request_write_error(loop->request, (const uint8_t *)SvPVX(text), SvCUR(text), loop->error);
    } else {
        for (at = 1; at < items && done >= 0; at++) {
            bytes = bytes_of(aTHX_ ST(at), &len);
            done = ix == 2 ? fcgiguard_request_write_error(loop->request, (const uint8_t *)bytes, len, loop->error)
                           : fcgiguard_request_write(loop->request, (const uint8_t *)bytes, len, loop->error);
        }
    }
    RETVAL = loop_outcome(aTHX_ loop, done);
  OUTPUT:
    RETVAL

SV *
request_send_file(request, fd, offset, len)
    FCGI::Guard::Request request
    int fd
    IV offset
    IV len
  PREINIT:
    guard_loop *loop;
  CODE:
    loop = request_check(aTHX_ request);
    RETVAL = loop_outcome(aTHX_ loop, fcgiguard_request_send_file(loop->request, fd, offset, len, loop->error));
  OUTPUT:
    RETVAL

SV *
request_flush(request)
    FCGI::Guard::Request request
  PREINIT:
    guard_loop *loop;
  CODE:
    loop = request_check(aTHX_ request);
    RETVAL = loop_outcome(aTHX_ loop, fcgiguard_request_flush(loop->request, loop->error));
  OUTPUT:
    RETVAL

bool
request_is_aborted(request)
    FCGI::Guard::Request request
  PREINIT:
    guard_loop *loop;
    int32_t found;
  CODE:
    loop = request_check(aTHX_ request);
    found = fcgiguard_request_is_aborted(loop->request, loop->error);
    if (found < 0) loop_throw(aTHX_ loop, found);
    RETVAL = found > 0;
  OUTPUT:
    RETVAL

SV *
request_finish(request, app_status = 0)
    FCGI::Guard::Request request
    UV app_status
  PREINIT:
    guard_loop *loop;
    int32_t done;
  CODE:
    loop = request_check(aTHX_ request);
    done = loop_finish(loop, app_status);
    if (done < 0) loop_throw(aTHX_ loop, done);
    RETVAL = boolSV(done);
  OUTPUT:
    RETVAL

void
request_DESTROY(request)
    FCGI::Guard::Request request
  PREINIT:
    guard_loop *loop;
  CODE:
    loop = request->loop;
    if (request->turn == loop->turn && loop->request) loop_drop_request(loop);
    if (request->params) {
        if (!loop->spare && !PL_dirty) loop->spare = request->params;
        else SvREFCNT_dec(request->params);
    }
    Safefree(request);
    loop_release(aTHX_ loop);
