/* FCGI::Guard: the C ABI of libfcgiguard in Perl's terms. Each package here is one handle; methods that can fail
 * croak with an FCGI::Guard::Error object {code, name, message}, made in one place (throw). */
#define PERL_NO_GET_CONTEXT
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* ppoll */
#endif
#include "EXTERN.h"
#include "perl.h"
#include "XSUB.h"
#include "fcgiguard.h"
#include <pthread.h>

typedef fcgiguard_probe *FCGI__Guard__Probe;
typedef fcgiguard_report *FCGI__Guard__Report;
typedef fcgiguard_pool *FCGI__Guard__Pool;
typedef fcgiguard_worker *FCGI__Guard__Worker;
typedef fcgiguard_trace *FCGI__Guard__Trace;

#include "responder.h"
typedef guard_loop *FCGI__Guard__Responder;
typedef guard_request *FCGI__Guard__Request;

#include "compat.h"
#include "managed.h"
typedef compat_request *FCGI;
typedef compat_stream *FCGI__Stream;

/* Dies with an FCGI::Guard::Error; the error handle is freed first, since croak does not come back. */
static void throw(pTHX_ int32_t code, fcgiguard_error *error)
{
    SV *message = sv_2mortal(newSVpv(fcgiguard_error_message(error), 0));
    fcgiguard_error_free(error);
    throw_message(aTHX_ code, SvPV_nolen(message));
}

/* Runs a call that takes an error, and throws if it fails. */
#define CALL(result, call)                                  \
    do {                                                    \
        fcgiguard_error *error = fcgiguard_error_new();     \
        result = (call);                                    \
        if (result < 0) throw(aTHX_ (int32_t)result, error); \
        fcgiguard_error_free(error);                        \
    } while (0)

/* The host's way to fork: perl's own, so that PL_ globals, $$ and at-fork handlers are right in the child. */
static int32_t perl_fork(void *userdata)
{
    dTHX;
    Pid_t pid;
    PERL_UNUSED_ARG(userdata);
    PERL_FLUSHALL_FOR_CHILD;
    pid = PerlProc_fork();
    return (int32_t)pid;
}

static SV *text_or_undef(pTHX_ const char *text)
{
    SV *sv;
    if (!text) return &PL_sv_undef;
    sv = newSVpv(text, 0);
    SvUTF8_on(sv);
    return sv;
}

MODULE = FCGI::Guard  PACKAGE = FCGI::Guard

PROTOTYPES: DISABLE

const char *
library_version()
  CODE:
    RETVAL = fcgiguard_version();
  OUTPUT:
    RETVAL

void
error_table()
  PREINIT:
    size_t at;
    int32_t code;
  PPCODE:
    for (at = 0; (code = fcgiguard_code_at(at)) != 0; at++) {
        mXPUSHi(code);
        mXPUSHp(fcgiguard_code_name(code), strlen(fcgiguard_code_name(code)));
    }

void
option_names()
  PREINIT:
    size_t at;
    const char *name;
  PPCODE:
    for (at = 0; (name = fcgiguard_option_name(at)) != NULL; at++)
        mXPUSHp(name, strlen(name));

int
option_exec_only(name)
    const char *name
  CODE:
    RETVAL = fcgiguard_option_exec_only(name);
  OUTPUT:
    RETVAL

void
check_address(address)
    const char *address
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_address_check(address, error));

int
listen_at(address, backlog = 0)
    const char *address
    U32 backlog
  CODE:
    CALL(RETVAL, fcgiguard_listen(address, backlog, error));
  OUTPUT:
    RETVAL

MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::Probe  PREFIX = probe_

FCGI::Guard::Probe
probe_new_handle()
  CODE:
    RETVAL = fcgiguard_probe_new();
  OUTPUT:
    RETVAL

void
probe_set(probe, name, value)
    FCGI::Guard::Probe probe
    const char *name
    const char *value
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_probe_set(probe, name, value, error));

FCGI::Guard::Report
probe_run(probe, address)
    FCGI::Guard::Probe probe
    const char *address
  PREINIT:
    int32_t code;
  CODE:
    RETVAL = NULL;
    CALL(code, fcgiguard_probe_run(probe, address, &RETVAL, error));
  OUTPUT:
    RETVAL

void
probe_DESTROY(probe)
    FCGI::Guard::Probe probe
  CODE:
    fcgiguard_probe_free(probe);

MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::Report  PREFIX = report_

int
report_code(report)
    FCGI::Guard::Report report
  CODE:
    RETVAL = fcgiguard_report_code(report);
  OUTPUT:
    RETVAL

int
report_exit_code(report)
    FCGI::Guard::Report report
  CODE:
    RETVAL = fcgiguard_report_exit_code(report);
  OUTPUT:
    RETVAL

SV *
report_text(report, field)
    FCGI::Guard::Report report
    const char *field
  CODE:
    RETVAL = text_or_undef(aTHX_ fcgiguard_report_text(report, field));
  OUTPUT:
    RETVAL

SV *
report_number(report, field)
    FCGI::Guard::Report report
    const char *field
  PREINIT:
    int64_t value;
  CODE:
    value = fcgiguard_report_number(report, field);
    RETVAL = value < 0 ? &PL_sv_undef : newSViv((IV)value);
  OUTPUT:
    RETVAL

void
report_DESTROY(report)
    FCGI::Guard::Report report
  CODE:
    fcgiguard_report_free(report);

INCLUDE: Client.xs

MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::Pool  PREFIX = pool_

FCGI::Guard::Pool
pool_new_handle()
  PREINIT:
    int32_t code;
  CODE:
    RETVAL = fcgiguard_pool_new();
    CALL(code, fcgiguard_pool_set_fork(RETVAL, perl_fork, NULL, error));
  OUTPUT:
    RETVAL

void
pool_set(pool, name, value)
    FCGI::Guard::Pool pool
    const char *name
    const char *value
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_pool_set(pool, name, value, error));

SV *
pool_get(pool, name)
    FCGI::Guard::Pool pool
    const char *name
  CODE:
    RETVAL = text_or_undef(aTHX_ fcgiguard_pool_get(pool, name));
  OUTPUT:
    RETVAL

void
pool_add_listener(pool, fd)
    FCGI::Guard::Pool pool
    int fd
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_pool_add_listener(pool, fd, error));

void
pool_set_image(pool, ...)
    FCGI::Guard::Pool pool
  PREINIT:
    int32_t code;
    const char **argv;
    int at;
  CODE:
    Newx(argv, items, const char *);
    SAVEFREEPV(argv);
    for (at = 1; at < items; at++) argv[at - 1] = SvPV_nolen_const(ST(at));
    argv[items - 1] = NULL;
    CALL(code, fcgiguard_pool_set_image(pool, argv, error));

void
pool_upgrade(pool)
    FCGI::Guard::Pool pool
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_pool_upgrade(pool, error));

void
pool_open(pool)
    FCGI::Guard::Pool pool
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_pool_open(pool, error));

int
pool_listener(pool, index = 0)
    FCGI::Guard::Pool pool
    UV index
  CODE:
    RETVAL = fcgiguard_pool_listener(pool, index);
  OUTPUT:
    RETVAL

int
pool_step(pool, timeout_ms = -1)
    FCGI::Guard::Pool pool
    IV timeout_ms
  CODE:
    CALL(RETVAL, fcgiguard_pool_step(pool, timeout_ms, error));
  OUTPUT:
    RETVAL

int
pool_exit_code(pool)
    FCGI::Guard::Pool pool
  CODE:
    RETVAL = fcgiguard_pool_exit_code(pool);
  OUTPUT:
    RETVAL

void
pool_signal(pool, signo)
    FCGI::Guard::Pool pool
    int signo
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_pool_signal(pool, signo, error));

void
pool_reload(pool, reason = "asked by the program")
    FCGI::Guard::Pool pool
    const char *reason
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_pool_reload(pool, reason, error));

void
pool_stop(pool)
    FCGI::Guard::Pool pool
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_pool_stop(pool, error));

void
pool_quit(pool)
    FCGI::Guard::Pool pool
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_pool_quit(pool, error));

void
pool_scale(pool, workers)
    FCGI::Guard::Pool pool
    U32 workers
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_pool_scale(pool, workers, error));

SV *
pool_next_event(pool)
    FCGI::Guard::Pool pool
  PREINIT:
    int32_t found;
    fcgiguard_event *event = NULL;
    HV *fields;
  CODE:
    CALL(found, fcgiguard_pool_next_event(pool, &event, error));
    if (found == 0) {
        RETVAL = &PL_sv_undef;
    } else {
        fields = newHV();
        (void)hv_stores(fields, "kind", text_or_undef(aTHX_ fcgiguard_event_kind(event)));
        (void)hv_stores(fields, "text", text_or_undef(aTHX_ fcgiguard_event_text(event)));
        (void)hv_stores(fields, "pool", text_or_undef(aTHX_ fcgiguard_event_pool(event)));
        (void)hv_stores(fields, "line", text_or_undef(aTHX_ fcgiguard_event_line(event)));
        (void)hv_stores(fields, "level", newSViv(fcgiguard_event_level(event)));
        (void)hv_stores(fields, "pid", newSViv(fcgiguard_event_pid(event)));
        (void)hv_stores(fields, "generation", newSViv(fcgiguard_event_generation(event)));
        (void)hv_stores(fields, "status", newSViv(fcgiguard_event_status(event)));
        fcgiguard_event_free(event);
        RETVAL = newRV_noinc((SV *)fields);
    }
  OUTPUT:
    RETVAL

SV *
pool_status_json(pool)
    FCGI::Guard::Pool pool
  CODE:
    RETVAL = text_or_undef(aTHX_ fcgiguard_pool_status_json(pool));
  OUTPUT:
    RETVAL

FCGI::Guard::Worker
pool_worker(pool)
    FCGI::Guard::Pool pool
  PREINIT:
    int32_t code;
  CODE:
    RETVAL = NULL;
    CALL(code, fcgiguard_pool_worker(pool, &RETVAL, error));
  OUTPUT:
    RETVAL

void
pool_DESTROY(pool)
    FCGI::Guard::Pool pool
  CODE:
    fcgiguard_pool_free(pool);

MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::Worker  PREFIX = worker_

SV *
worker_from_environment(class)
    const char *class
  PREINIT:
    int32_t found;
    fcgiguard_worker *worker = NULL;
  CODE:
    PERL_UNUSED_VAR(class);
    CALL(found, fcgiguard_worker_from_environment(&worker, error));
    RETVAL = found ? sv_setref_pv(newSV(0), "FCGI::Guard::Worker", worker) : &PL_sv_undef;
  OUTPUT:
    RETVAL

void
worker_ready(worker)
    FCGI::Guard::Worker worker
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_worker_ready(worker, error));

int
worker_wait(worker, fd, timeout_ms = -1)
    FCGI::Guard::Worker worker
    int fd
    IV timeout_ms
  CODE:
    CALL(RETVAL, fcgiguard_worker_wait(worker, fd, timeout_ms, error));
  OUTPUT:
    RETVAL

void
worker_pre_dispatch(worker)
    FCGI::Guard::Worker worker
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_worker_pre_dispatch(worker, error));

int
worker_post_dispatch(worker)
    FCGI::Guard::Worker worker
  CODE:
    CALL(RETVAL, fcgiguard_worker_post_dispatch(worker, error));
  OUTPUT:
    RETVAL

int
worker_is_leaving(worker)
    FCGI::Guard::Worker worker
  CODE:
    RETVAL = fcgiguard_worker_is_leaving(worker);
  OUTPUT:
    RETVAL

void
worker_extend_deadline(worker, ms)
    FCGI::Guard::Worker worker
    IV ms
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_worker_extend_deadline(worker, ms, error));

void
worker_fatal(worker, why)
    FCGI::Guard::Worker worker
    const char *why
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_worker_fatal(worker, why, error));

int
worker_lifeline_fd(worker)
    FCGI::Guard::Worker worker
  CODE:
    RETVAL = fcgiguard_worker_lifeline_fd(worker);
  OUTPUT:
    RETVAL

int
worker_generation(worker)
    FCGI::Guard::Worker worker
  CODE:
    RETVAL = fcgiguard_worker_generation(worker);
  OUTPUT:
    RETVAL

void
worker_DESTROY(worker)
    FCGI::Guard::Worker worker
  CODE:
    fcgiguard_worker_free(worker);

MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::Trace  PREFIX = trace_

FCGI::Guard::Trace
trace_new_handle(side)
    const char *side
  CODE:
    RETVAL = fcgiguard_trace_new(side);
    if (!RETVAL) croak("there is no side '%s'", side);
  OUTPUT:
    RETVAL

void
trace_feed(trace, bytes)
    FCGI::Guard::Trace trace
    SV *bytes
  PREINIT:
    int32_t code;
    STRLEN len;
    const char *start;
  CODE:
    start = SvPVbyte(bytes, len);
    CALL(code, fcgiguard_trace_feed(trace, (const uint8_t *)start, len, error));

void
trace_finish(trace)
    FCGI::Guard::Trace trace
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_trace_finish(trace, error));

const char *
trace_events(trace)
    FCGI::Guard::Trace trace
  CODE:
    RETVAL = fcgiguard_trace_events(trace);
  OUTPUT:
    RETVAL

const char *
trace_output(trace)
    FCGI::Guard::Trace trace
  CODE:
    RETVAL = fcgiguard_trace_output(trace);
  OUTPUT:
    RETVAL

const char *
trace_error(trace)
    FCGI::Guard::Trace trace
  CODE:
    RETVAL = fcgiguard_trace_error(trace);
  OUTPUT:
    RETVAL

void
trace_DESTROY(trace)
    FCGI::Guard::Trace trace
  CODE:
    fcgiguard_trace_free(trace);

INCLUDE: Responder.xs

INCLUDE: Compat.xs

INCLUDE: Managed.xs
