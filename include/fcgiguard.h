/* fcgiguard.h - FastCGI: probe, respond, guard. Generated from ffi/; do not edit.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * CONVENTIONS, stated once
 *
 * Names     fcgiguard_<object>_<verb>. Every object is an opaque handle from _new (or an out argument) and goes back
 *           with _free. _free(NULL) does nothing.
 * Return    int32_t: 0 or a positive value is success, a negative value is a code of the one error table
 *           (docs/errors.md; fcgiguard_code_name). Numbers are never reused.
 * Errors    The last argument `fcgiguard_error *error` may be NULL. It is overwritten by a failing call and left alone
 *           by a succeeding one, so one error object serves any number of calls.
 * NULL      A NULL handle or out argument is the error null_argument, not a crash, unless a comment allows it.
 * Text      Text going in is NUL-terminated UTF-8; bytes have a pointer and a length. Text coming out stays valid as
 *           its comment says; nobody but the library frees it.
 * Units     Times are int64_t milliseconds (_ms) or microseconds (_us); -1 means none, 0 means do not wait. Sizes are bytes.
 * Threads   A handle is used by one thread at a time; different handles by different threads at will. The library
 *           starts no thread. A call on a handle that is in use, by another thread or by the call whose callback this is, is
 *           the error wrong_state; _free leaves such a handle alone. A request counts with its responder until it is detached.
 * Memory    Use after _free is told (wrong_state) only as long as nothing else has got the memory: do not rely on it.
 *           What peers make large is bounded by options (limit_exceeded); want of memory for it is out_of_memory. Where
 *           malloc has nothing left, the call in hand goes on with a reserve of 1 MB; from then on a _new is NULL and every
 *           other call is out_of_memory before it does anything, until there is memory again. _free works all the time.
 * Fork      A handle remembers the process that made it; in another process every call but _free is the error
 *           wrong_process. The exceptions are said where they are (a pool's worker).
 * Signals   Only fcgiguard_pool_run changes signal handlers, and restores them when it returns. SIGPIPE is never raised.
 * Panics    A fault of the library never crosses this border: the call returns internal, and the handle is poisoned
 *           (every later call but _free returns poisoned).
 * Callbacks A callback must return normally: no longjmp, no C++ exception through the library.
 */


#ifndef FCGIGUARD_H
#define FCGIGUARD_H

#include <stddef.h>
#include <stdint.h>

/*
 What fcgiguard_pool_step and fcgiguard_pool_run return, besides negative codes.
 */
typedef enum {
  /*
   Nothing for the host to do.
   */
  FCGIGUARD_STEP_IDLE = 0,
  /*
   Events wait in fcgiguard_pool_next_event.
   */
  FCGIGUARD_STEP_EVENTS = 1,
  /*
   This process is a new worker: fcgiguard_pool_worker.
   */
  FCGIGUARD_STEP_WORKER = 2,
  /*
   The pool has ended: fcgiguard_pool_exit_code.
   */
  FCGIGUARD_STEP_ENDED = 3,
} fcgiguard_step;

/*
 The reason of a failed call. Made once, passed to any number of calls; each failing call overwrites it, a
 succeeding call leaves it alone. One thread at a time.
 */
typedef struct fcgiguard_error fcgiguard_error;

/*
 A client of one FastCGI application, with one request at a time: connect, then for each request param, begin, write, end, read
 until 0. A request that failed (any error but wrong_state, limit_exceeded and those of arguments) has lost its connection; the
 next begin makes another one.
 */
typedef struct fcgiguard_client fcgiguard_client;

/*
 A pre-fork pool: options, then open, then step or run until it has ended.
 */
typedef struct fcgiguard_pool fcgiguard_pool;

/*
 Forks in the host's own way: returns the child's id, 0 in the child, -1 on failure.
 */
typedef int32_t (*fcgiguard_fork_fn)(void *userdata);

/*
 Something that happened in a pool. Belongs to the caller.
 */
typedef struct fcgiguard_event fcgiguard_event;

/*
 Is told of an event by fcgiguard_pool_run. The event is the library's and lasts until the return; the pool may not be used meanwhile
 (`busy`). It must return: no longjmp, no exception through it.
 */
typedef void (*fcgiguard_event_fn)(fcgiguard_event *event, void *userdata);

/*
 A worker's link to its manager. Belongs to the worker's process.
 */
typedef struct fcgiguard_worker fcgiguard_worker;

/*
 A probe: what to ask, what to expect, how long to wait. Serves any number of addresses.
 */
typedef struct fcgiguard_probe fcgiguard_probe;

/*
 What a probe found. Belongs to the caller and outlives its probe.
 */
typedef struct fcgiguard_report fcgiguard_report;

/*
 The application side of one listening socket; one request at a time.
 */
typedef struct fcgiguard_responder fcgiguard_responder;

/*
 A request. Lives until fcgiguard_request_finish or _free; used later than that, or after its responder took another one,
 every call is the error no_request.
 */
typedef struct fcgiguard_request fcgiguard_request;

/*
 A name and a value, neither NUL-terminated; both are valid until the request is over.
 */
typedef struct {
  const uint8_t *name;
  size_t name_len;
  const uint8_t *value;
  size_t value_len;
} fcgiguard_param;

/*
 Turns a byte stream into canonical text: the shared test vectors of every language run through it.
 */
typedef struct fcgiguard_trace fcgiguard_trace;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 A client that is not connected. Free it with fcgiguard_client_free.
 */
fcgiguard_client *fcgiguard_client_new(void);

/*
 Frees a client and closes its connection; NULL is allowed.

 `client` is NULL or came from fcgiguard_client_new and is not used afterwards.
 */
void fcgiguard_client_free(fcgiguard_client *client);

/*
 Sets an option: timeout (of a connect, and of a request from begin to its end; 60s; 0 is none), idle_timeout (longest wait without
 a byte; 0, none), keep_conn (0 or 1; 0), role (responder, authorizer, filter), hold (size of the answer that may wait while the
 body is written; 64M), head_bytes (64k), head_fields (256), interruptible (0 or 1; 0: with 1 a signal ends a wait of write, read or
 head with the error interrupted, and the same call goes on). Errors: unknown_option, invalid_option.

 `client` is valid; `name` and `value` are NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_client_set(fcgiguard_client *client,
                             const char *name,
                             const char *value,
                             fcgiguard_error *error);

/*
 Connects, after closing what was open. Errors: invalid_address, unresolved_host, no_socket, refused, denied, backlog_full,
 connect_timeout.

 `client` is valid; `address` is NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_client_connect(fcgiguard_client *client,
                                 const char *address,
                                 fcgiguard_error *error);

/*
 Adds a param to the next request; they are sent in this order. Name and value are bytes.

 `client` is valid; `name` and `value` are readable for their lengths; `error` is NULL or valid.
 */
int32_t fcgiguard_client_param(fcgiguard_client *client,
                               const uint8_t *name,
                               size_t name_len,
                               const uint8_t *value,
                               size_t value_len,
                               fcgiguard_error *error);

/*
 Begins a request with the params so far, over the kept connection or a new one; nothing is sent before the first write, end or
 read. Its timeout counts from here. The params are used up, also when no connection can be had.

 `client` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_client_begin(fcgiguard_client *client,
                               fcgiguard_error *error);

/*
 Writes a piece of the body (STDIN) and holds what is answered meanwhile. Returns the number of bytes taken: `len`, or fewer if more
 was answered than `hold` allows; then read, and write the rest (the next write is limit_exceeded until something was read).
 Once the application has ended the request or is gone, the body is dropped, and read tells.

 `client` is valid; `input` is readable for `len` bytes; `error` is NULL or valid.
 */
int64_t fcgiguard_client_write(fcgiguard_client *client,
                               const uint8_t *input,
                               size_t len,
                               fcgiguard_error *error);

/*
 Writes a piece of a filter's data, after its body; as fcgiguard_client_write.

 As fcgiguard_client_write.
 */
int64_t fcgiguard_client_write_data(fcgiguard_client *client,
                                    const uint8_t *input,
                                    size_t len,
                                    fcgiguard_error *error);

/*
 Ends the body. What the peer does not take at once is sent by the reads that follow.

 `client` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_client_end(fcgiguard_client *client, fcgiguard_error *error);

/*
 The next piece of the answer: 1 of STDOUT, 2 of STDERR, 0 when the request is over. The bytes are valid until the next call with
 this client. Errors: timeout, closed (no answer), truncated, and those of the protocol.

 `client` is valid; `input` and `len` are writable; `error` is NULL or valid.
 */
int32_t fcgiguard_client_read(fcgiguard_client *client,
                              const uint8_t **input,
                              size_t *len,
                              fcgiguard_error *error);

/*
 Waits for the CGI head and takes it out of the answer: the HTTP status, 100 to 999. read then gives the body. Errors beside those
 of read: unexpected (no head) and limit_exceeded; after these, read gives the whole answer as it came.

 `client` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_client_head(fcgiguard_client *client,
                              fcgiguard_error *error);

/*
 A field of the head by its place: 1, or 0 past the end; the head must have been taken. Valid until the next begin.

 `client` is valid; the four out arguments are writable; `error` is NULL or valid.
 */
int32_t fcgiguard_client_header_at(fcgiguard_client *client,
                                   size_t index,
                                   const uint8_t **name,
                                   size_t *name_len,
                                   const uint8_t **value,
                                   size_t *value_len,
                                   fcgiguard_error *error);

/*
 What the application returned, 0 to 4294967295; -1 before the answer's end and for NULL.

 `client` is NULL or valid.
 */
int64_t fcgiguard_client_app_status(fcgiguard_client *client);

/*
 What the protocol says: 0 complete, 1 cannot multiplex, 2 overloaded, 3 unknown role; -1 before the answer's end and for NULL.

 `client` is NULL or valid.
 */
int32_t fcgiguard_client_protocol_status(fcgiguard_client *client);

/*
 1 if a connection is open: after an answer's end, if it was kept; 0 if not and for NULL.

 `client` is NULL or valid.
 */
int32_t fcgiguard_client_is_connected(fcgiguard_client *client);

/*
 Asks the application to give the request up. Read on to see its end, or drop it: begin, connect, close and free close its
 connection, which stops applications that do not look at the wish.

 `client` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_client_abort(fcgiguard_client *client,
                               fcgiguard_error *error);

/*
 Closes the connection; an answer that was not read to its end is lost. The next begin connects to the same address.

 `client` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_client_close(fcgiguard_client *client,
                               fcgiguard_error *error);

/*
 Makes an empty error (code 0, message ""); NULL where memory has ended. Free it with fcgiguard_error_free.
 */
fcgiguard_error *fcgiguard_error_new(void);

/*
 Frees an error; NULL is allowed.

 `error` is NULL or came from fcgiguard_error_new and is not used afterwards.
 */
void fcgiguard_error_free(fcgiguard_error *error);

/*
 The code of the last failure that was written to this error; 0 if none.

 `error` is NULL or valid.
 */
int32_t fcgiguard_error_code(const fcgiguard_error *error);

/*
 The message of the last failure, one line of UTF-8. Valid until the next call that gets this error; never NULL.

 `error` is NULL or valid.
 */
const char *fcgiguard_error_message(const fcgiguard_error *error);

/*
 The name of a code, for example "silent"; "ok" for 0; NULL for a number that is no code. Static.
 */
const char *fcgiguard_code_name(int32_t code);

/*
 What the reader can do about a code, one sentence; NULL for a number that is no code. Static.
 */
const char *fcgiguard_code_advice(int32_t code);

/*
 Walks the error table: the code at `index`, 0 past the end.
 */
int32_t fcgiguard_code_at(size_t index);

/*
 A pool with the options' defaults. Free it with fcgiguard_pool_free.
 */
fcgiguard_pool *fcgiguard_pool_new(void);

/*
 Frees a pool; NULL is allowed. A pool that has not ended leaves its workers alone; they end by their lifeline. Allowed in a
 forked child, where it gives memory and descriptors back and touches no socket file.

 `pool` is NULL or came from fcgiguard_pool_new and is not used afterwards.
 */
void fcgiguard_pool_free(fcgiguard_pool *pool);

/*
 Sets an option of the one table from text, as a person would write it ("5s", "64M"); a list option is added to. Only
 before open. Errors: unknown_option, invalid_option.

 `pool` is valid; `name` and `value` are NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_set(fcgiguard_pool *pool,
                           const char *name,
                           const char *value,
                           fcgiguard_error *error);

/*
 Sets an option from a number: milliseconds, bytes or a count, as the option's kind says.

 `pool` is valid; `name` is NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_set_int(fcgiguard_pool *pool, const char *name, int64_t value, fcgiguard_error *error);

/*
 An option's value as a person would write it; NULL if there is no such option. Valid until the next call with this pool.

 `pool` and `name` are NULL or valid.
 */
const char *fcgiguard_pool_get(fcgiguard_pool *pool,
                               const char *name);

/*
 Makes it a pool of a command's processes (exec mode). `argv` is NULL-terminated and copied.

 `pool` is valid; `argv` is an array of NUL-terminated strings that ends with NULL; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_set_command(fcgiguard_pool *pool, const char *const *argv, fcgiguard_error *error);

/*
 How this program is started again: program (looked for in PATH) and arguments. An upgrade executes it, in the same process, after
 a dry run; without it an upgrade is refused. The dry run is a child that runs the program up to its `fcgiguard_pool_open`, which
 checks everything, reports to the manager and ends the child. May be called before or after open; `argv` is copied.

 `pool` is valid; `argv` is an array of NUL-terminated strings that ends with NULL; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_set_image(fcgiguard_pool *pool,
                                 const char *const *argv,
                                 fcgiguard_error *error);

/*
 Replaces the program by a new image of itself (see `fcgiguard_pool_set_image`): the sockets stay open, the workers live on and
 are then replaced one by one. Where the new image fails its dry run, this one serves on and the notice `upgrade_failed` says why.
 The call notes the wish; a later step carries it out and does not return then.

 `pool` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_upgrade(fcgiguard_pool *pool,
                               fcgiguard_error *error);

/*
 A listening socket for a program that opens its own: after an upgrade the one that the former image had at this address, else a
 new one. Returns the descriptor, which is the caller's to close and closes on exec. `backlog` 0 is the default of the option.

 `address` is NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_listen(const char *address,
                         uint32_t backlog,
                         fcgiguard_error *error);

/*
 The host's way to fork (fork mode); NULL is the C library's. A host with hooks of its own (Perl, Python) must give its own.

 `pool` is valid; `fork` may be called with `userdata` until the pool is freed; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_set_fork(fcgiguard_pool *pool,
                                fcgiguard_fork_fn fork,
                                void *userdata,
                                fcgiguard_error *error);

/*
 Adds a descriptor that listens already. It stays the caller's; the pool uses a copy.

 `pool` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_add_listener(fcgiguard_pool *pool, int32_t fd, fcgiguard_error *error);

/*
 Checks everything and binds. On error (the message has every fault) nothing was started and nothing is bound.

 `pool` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_open(fcgiguard_pool *pool, fcgiguard_error *error);

/*
 A listening descriptor by its place, -1 past the end. Stays the pool's.

 `pool` is NULL or valid. Allowed in a worker.
 */
int32_t fcgiguard_pool_listener(fcgiguard_pool *pool, size_t index);

/*
 Waits at most `timeout_ms` (-1: as long as needed, 0: not at all) and deals with what happened. Returns a fcgiguard_step.
 For hosts with a loop and signal handlers of their own: a signal ends the wait early.

 `pool` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_step(fcgiguard_pool *pool,
                            int64_t timeout_ms,
                            fcgiguard_error *error);

/*
 Runs to the end, with signal handlers of its own, which are put back. Returns FCGIGUARD_STEP_WORKER in each child of
 fork mode and FCGIGUARD_STEP_ENDED in the manager. Events go to fcgiguard_pool_on_event's function, without one to standard error.

 `pool` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_run(fcgiguard_pool *pool,
                           fcgiguard_error *error);

/*
 What the process should exit with, once the pool has ended.

 `pool` is NULL or valid.
 */
int32_t fcgiguard_pool_exit_code(fcgiguard_pool *pool);

/*
 As if the manager had got this signal.

 `pool` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_signal(fcgiguard_pool *pool, int32_t signo, fcgiguard_error *error);

/*
 Replaces the workers, each new one ready before an old one leaves. `reason` is for the log; NULL is allowed.

 `pool` is valid; `reason` is NULL or NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_reload(fcgiguard_pool *pool, const char *reason, fcgiguard_error *error);

/*
 Ends the pool after the requests in flight.

 `pool` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_stop(fcgiguard_pool *pool, fcgiguard_error *error);

/*
 Ends the pool at once; requests in flight are lost.

 `pool` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_quit(fcgiguard_pool *pool, fcgiguard_error *error);

/*
 Another number of workers (static), or another ceiling (dynamic, ondemand).

 `pool` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_scale(fcgiguard_pool *pool, uint32_t workers, fcgiguard_error *error);

/*
 How long the next step would wait at most, in milliseconds; -1 for as long as it likes.

 `pool` is NULL or valid.
 */
int64_t fcgiguard_pool_next_timer_ms(fcgiguard_pool *pool);

/*
 For a loop of the program's own: the descriptors that the next step would wait for, and for each what poll(2) is to look for
 (POLLIN, POLLOUT). Writes at most `room` of each and returns how many there are; `fds` and `events` may be NULL with a room of 0.
 The loop: step with a timeout of 0 until it returns FCGIGUARD_STEP_IDLE; ask for the descriptors; wait for them and for at most
 fcgiguard_pool_next_timer_ms; again. Ask anew after each step, and after reload, scale, stop, quit, signal and upgrade step at
 once: what they ask for is done by a step. The descriptors stay the pool's. A signal must end the wait, or be told by
 fcgiguard_pool_signal.

 `pool` is valid; `fds` and `events` are writable for `room` elements each; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_poll_fds(fcgiguard_pool *pool,
                                int32_t *fds,
                                int16_t *events,
                                size_t room,
                                fcgiguard_error *error);

/*
 Takes the oldest event: 1 and the event, which is the caller's to free, or 0 when there is none.

 `pool` is valid; `event` is writable; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_next_event(fcgiguard_pool *pool, fcgiguard_event **event, fcgiguard_error *error);

/*
 The function that fcgiguard_pool_run tells of each event, with `userdata`; NULL: they are printed to standard error. With
 fcgiguard_pool_step, events are taken by fcgiguard_pool_next_event.

 `pool` is valid; `told` may be called with `userdata` until the pool is freed; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_on_event(fcgiguard_pool *pool,
                                fcgiguard_event_fn told,
                                void *userdata,
                                fcgiguard_error *error);

/*
 Frees an event; NULL is allowed.

 `event` is NULL or came from fcgiguard_pool_next_event and is not used afterwards.
 */
void fcgiguard_event_free(fcgiguard_event *event);

/*
 The event's kind, a stable name like "worker_exited". Valid until the event is freed.

 `event` is NULL or valid.
 */
const char *fcgiguard_event_kind(const fcgiguard_event *event);

/*
 One line for people. Valid until the event is freed.

 `event` is NULL or valid.
 */
const char *fcgiguard_event_text(const fcgiguard_event *event);

/*
 The event as a line of a log has it: the pool's name, the worker's generation and process id if it is about one, and the text. Valid
 until the event is freed.

 `event` is NULL or valid.
 */
const char *fcgiguard_event_line(const fcgiguard_event *event);

/*
 The pool's name. Valid until the event is freed.

 `event` is NULL or valid.
 */
const char *fcgiguard_event_pool(const fcgiguard_event *event);

/*
 How much it matters, as syslog has it: 3 error, 4 warning, 5 notice, 6 info, 7 debug.

 `event` is NULL or valid.
 */
int32_t fcgiguard_event_level(const fcgiguard_event *event);

/*
 The worker's process id; 0 if the event is not about one.

 `event` is NULL or valid.
 */
int32_t fcgiguard_event_pid(const fcgiguard_event *event);

/*
 The worker's generation; 0 if the event is not about one.

 `event` is NULL or valid.
 */
int32_t fcgiguard_event_generation(const fcgiguard_event *event);

/*
 After FCGIGUARD_STEP_WORKER, once: the worker's handle. The pool handle may then only be freed, and asked for its listeners.

 `pool` is valid; `worker` is writable; `error` is NULL or valid.
 */
int32_t fcgiguard_pool_worker(fcgiguard_pool *pool,
                              fcgiguard_worker **worker,
                              fcgiguard_error *error);

/*
 The raw wait status of a worker that has ended (kind worker_exited); -1 for any other event.

 `event` is NULL or valid.
 */
int32_t fcgiguard_event_status(const fcgiguard_event *event);

/*
 The pool's status as one JSON object; NULL before open. Valid until the next call with this pool.

 `pool` is NULL or valid.
 */
const char *fcgiguard_pool_status_json(fcgiguard_pool *pool);

/*
 A probe with the defaults: method auto, timeout 5 s. Free it with fcgiguard_probe_free.
 */
fcgiguard_probe *fcgiguard_probe_new(void);

/*
 Frees a probe; NULL is allowed.

 `probe` is NULL or came from fcgiguard_probe_new and is not used afterwards.
 */
void fcgiguard_probe_free(fcgiguard_probe *probe);

/*
 Sets an option: method (auto, get-values, request), timeout (250ms, 5s; a bare number is seconds), param (NAME=VALUE, adds),
 script (SCRIPT_FILENAME, for php), expect_status (200 or 2xx), expect_header ("Name: value", adds), expect_body (a text that the
 body must contain). Errors: unknown_option, invalid_option.

 `probe` is valid; `name` and `value` are NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_probe_set(fcgiguard_probe *probe,
                            const char *name,
                            const char *value,
                            fcgiguard_error *error);

/*
 Probes one address and waits for the verdict, at most the timeout. Returns 0 whatever the verdict is; errors are wrong use
 (invalid_address, conflicting_options, unresolved_host) or want of resources. `report` is the caller's to free.

 `probe` is valid; `address` is NUL-terminated; `report` is writable; `error` is NULL or valid.
 */
int32_t fcgiguard_probe_run(fcgiguard_probe *probe,
                            const char *address,
                            fcgiguard_report **report,
                            fcgiguard_error *error);

/*
 Frees a report; NULL is allowed.

 `report` is NULL or came from fcgiguard_probe_run and is not used afterwards.
 */
void fcgiguard_report_free(fcgiguard_report *report);

/*
 0 if healthy, else the verdict's code (busy -501, refused -502, ...); null_argument for NULL.

 `report` is NULL or valid.
 */
int32_t fcgiguard_report_code(const fcgiguard_report *report);

/*
 0 alive, 1 busy, 2 dead: Nagios' own exit codes; 3 for NULL.

 `report` is NULL or valid.
 */
int32_t fcgiguard_report_exit_code(const fcgiguard_report *report);

/*
 A text of the report: address, verdict, outcome (alive, busy, dead), phase, method, detail (one sentence), json (one object), line
 (one line for people). NULL if there is no such field. Valid until the report is freed.

 `report` is NULL or valid; `field` is NULL or NUL-terminated.
 */
const char *fcgiguard_report_text(const fcgiguard_report *report,
                                  const char *field);

/*
 A number of the report: elapsed_us, connect_us, send_us, first_byte_us, complete_us, queue_waiting, queue_limit, http_status,
 app_status, first_byte. -1 if it is not known or there is no such field.

 `report` is NULL or valid; `field` is NULL or NUL-terminated.
 */
int64_t fcgiguard_report_number(const fcgiguard_report *report,
                                const char *field);

/*
 A responder that is not open. Free it with fcgiguard_responder_free.
 */
fcgiguard_responder *fcgiguard_responder_new(void);

/*
 Frees a responder; NULL is allowed. A request that is still open is dropped without an END.

 `responder` is NULL or came from fcgiguard_responder_new and is not used afterwards.
 */
void fcgiguard_responder_free(fcgiguard_responder *responder);

/*
 Sets an option before open: head_timeout, body_timeout, write_timeout, keep_idle, leave_grace (durations), keep_max (count),
 keep_conn, drop_proxy_header (yes or no), web_server_addrs (addresses with commas), params_bytes, value_len, spill_max (sizes), params_count.

 `responder` is valid; `name` and `value` are NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_responder_set(fcgiguard_responder *responder,
                                const char *name,
                                const char *value,
                                fcgiguard_error *error);

/*
 Listens. `address` NULL: descriptor 0, as managers, spawners and web servers start an application; if that is no listening socket,
 one CGI request from the environment. In a program that `fcgiguard run` started it joins its manager by itself.

 `responder` is valid; `address` is NULL or NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_responder_open(fcgiguard_responder *responder,
                                 const char *address,
                                 fcgiguard_error *error);

/*
 Serves a descriptor that listens already; it stays the caller's and open. `worker`, if not NULL, is this worker of a pool: drains
 and busy marks go through it. Several responders, one in each thread, may share the descriptor (set it non-blocking then, so that
 none waits in accept for what another took) and the worker.

 `responder` is valid; `worker` is NULL or valid; `error` is NULL or valid.
 */
int32_t fcgiguard_responder_attach(fcgiguard_responder *responder,
                                   int32_t fd,
                                   fcgiguard_worker *worker,
                                   fcgiguard_error *error);

/*
 1 if a descriptor is a listening socket, else 0.
 */
int32_t fcgiguard_responder_is_fastcgi(int32_t fd);

/*
 The descriptor to poll for reading in a loop of the program's own; then call fcgiguard_responder_next until it returns 2.

 `responder` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_responder_fd(fcgiguard_responder *responder,
                               fcgiguard_error *error);

/*
 Waits for the next request: 1 and the request, or 0 when the program should leave. A request still open is finished first.

 `responder` is valid; `request` is writable; `error` is NULL or valid.
 */
int32_t fcgiguard_responder_accept(fcgiguard_responder *responder,
                                   fcgiguard_request **request,
                                   fcgiguard_error *error);

/*
 As fcgiguard_responder_accept, but a signal that interrupts the wait ends it with 2, for hosts that run their signal handlers
 between calls. The handler must be installed without SA_RESTART.

 `responder` is valid; `request` is writable; `error` is NULL or valid.
 */
int32_t fcgiguard_responder_accept_until_signal(fcgiguard_responder *responder,
                                                fcgiguard_request **request,
                                                fcgiguard_error *error);

/*
 As fcgiguard_responder_accept without waiting: 2 when there is nothing now.

 `responder` is valid; `request` is writable; `error` is NULL or valid.
 */
int32_t fcgiguard_responder_next(fcgiguard_responder *responder,
                                 fcgiguard_request **request,
                                 fcgiguard_error *error);

/*
 What the program is asked to be: 1 responder, 2 authorizer, 3 filter; 0 for NULL.

 `request` is NULL or valid.
 */
int32_t fcgiguard_request_role(fcgiguard_request *request);

/*
 How many params there are; 0 for NULL.

 `request` is NULL or valid.
 */
size_t fcgiguard_request_param_count(fcgiguard_request *request);

/*
 The value of the last param of that name: 1, or 0 if there is none. Not NUL-terminated; valid until the request is over.

 `request` is valid; `name` is NUL-terminated; `value` and `len` are writable; `error` is NULL or valid.
 */
int32_t fcgiguard_request_param(fcgiguard_request *request,
                                const char *name,
                                const uint8_t **value,
                                size_t *len,
                                fcgiguard_error *error);

/*
 A param by its place, in the order of the wire: 1, or 0 past the end. Valid until the request is over.

 `request` is valid; the four out arguments are writable; `error` is NULL or valid.
 */
int32_t fcgiguard_request_param_at(fcgiguard_request *request,
                                   size_t index,
                                   const uint8_t **name,
                                   size_t *name_len,
                                   const uint8_t **value,
                                   size_t *value_len,
                                   fcgiguard_error *error);

/*
 All params at once, in the order of the wire: fills at most `room` of them and returns how many there are.

 `request` is valid; `into` is writable for `room` elements; `error` is NULL or valid.
 */
int64_t fcgiguard_request_params(fcgiguard_request *request,
                                 fcgiguard_param *into,
                                 size_t room,
                                 fcgiguard_error *error);

/*
 Reads the body (STDIN): the number of bytes, 0 at its end. Waits at most body_timeout.

 `request` is valid; `into` is writable for `len` bytes; `error` is NULL or valid.
 */
int64_t fcgiguard_request_read(fcgiguard_request *request, uint8_t *into, size_t len, fcgiguard_error *error);

/*
 Reads a filter's data: the number of bytes, 0 at its end and for other roles.

 As fcgiguard_request_read.
 */
int64_t fcgiguard_request_read_data(fcgiguard_request *request,
                                    uint8_t *into,
                                    size_t len,
                                    fcgiguard_error *error);

/*
 Writes to STDOUT, buffered; returns `len`. The error aborted means that the web server is gone: stop working on the request.

 `request` is valid; `input` is readable for `len` bytes; `error` is NULL or valid.
 */
int64_t fcgiguard_request_write(fcgiguard_request *request,
                                const uint8_t *input,
                                size_t len,
                                fcgiguard_error *error);

/*
 Writes to STDERR, which web servers put into their error log; returns `len`.

 As fcgiguard_request_write.
 */
int64_t fcgiguard_request_write_error(fcgiguard_request *request,
                                      const uint8_t *input,
                                      size_t len,
                                      fcgiguard_error *error);

/*
 Sends part of a file to STDOUT, in the kernel where it can. The descriptor stays the caller's.

 `request` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_request_send_file(fcgiguard_request *request,
                                    int32_t fd,
                                    int64_t offset,
                                    int64_t len,
                                    fcgiguard_error *error);

/*
 Sends what is buffered.

 `request` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_request_flush(fcgiguard_request *request, fcgiguard_error *error);

/*
 The application status of END_REQUEST; 0 unless set.

 `request` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_request_set_app_status(fcgiguard_request *request, uint32_t status, fcgiguard_error *error);

/*
 1 if the web server gave the request up or went away. Does not wait.

 `request` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_request_is_aborted(fcgiguard_request *request, fcgiguard_error *error);

/*
 Parts the request from its responder, which may accept the next one meanwhile; the request may go to another thread. Its
 connection goes back to the responder when it is finished. Called between other calls of both. 1 if done; 0 if it cannot be (plain
 CGI): then the request still is the responder's.

 `request` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_request_detach(fcgiguard_request *request,
                                 fcgiguard_error *error);

/*
 Every responder of this process leaves after the request in hand; for good. May be called by a signal handler (installed without
 SA_RESTART, so that a wait ends by it), of whichever thread: those that wait in others are woken, too.
 */
void fcgiguard_responder_leave_all(void);

/*
 Ends the request: the rest of STDOUT and END_REQUEST go out in one write. Frees the handle, whatever it returns (unless it is in
 use).

 `request` is NULL or valid, and is not used afterwards; `error` is NULL or valid.
 */
int32_t fcgiguard_request_finish(fcgiguard_request *request,
                                 fcgiguard_error *error);

/*
 Frees the handle without an END_REQUEST: the request stays the responder's, which ends it at its next accept. NULL is allowed. In a
 forked child it leaves the parent's connection alone.

 `request` is NULL or valid, and is not used afterwards.
 */
void fcgiguard_request_free(fcgiguard_request *request);

/*
 The library's version, for example "0.1.0". Static.
 */
const char *fcgiguard_version(void);

/*
 Whether an address parses: 0, or invalid_address with a message that names the character. Forms: unix:/path, /path,
 host:port, :port, [v6]:port, fd:N, systemd:NAME.

 `address` is NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_address_check(const char *address,
                                fcgiguard_error *error);

/*
 Walks the table of pool options: the name at `index`, NULL past the end. Static.
 */
const char *fcgiguard_option_name(size_t index);

/*
 An option's default, as a person would write it; NULL if there is no such option. Static.

 `name` is NULL or NUL-terminated.
 */
const char *fcgiguard_option_default(const char *name);

/*
 What an option does; NULL if there is no such option. Static.

 `name` is NULL or NUL-terminated.
 */
const char *fcgiguard_option_text(const char *name);

/*
 How an option's value is written ("duration", "size", "count", or its choices); NULL if there is no such option. Static.

 `name` is NULL or NUL-terminated.
 */
const char *fcgiguard_option_kind(const char *name);

/*
 Whether an option is for a pool of a command only: a pool whose workers are forks of the program refuses it. 1 if so, 0 if not, -1 if
 there is no such option.

 `name` is NULL or NUL-terminated.
 */
int32_t fcgiguard_option_exec_only(const char *name);

/*
 A trace of the side "responder", "multiplexer", "requester" or "pairs"; NULL for any other name.

 `side` is NULL or NUL-terminated.
 */
fcgiguard_trace *fcgiguard_trace_new(const char *side);

/*
 Frees a trace; NULL is allowed.

 `trace` is NULL or came from fcgiguard_trace_new and is not used afterwards.
 */
void fcgiguard_trace_free(fcgiguard_trace *trace);

/*
 Feeds a piece of the stream. A broken rule is no error of this call: see fcgiguard_trace_error.

 `trace` is valid; `input` is readable for `len` bytes; `error` is NULL or valid.
 */
int32_t fcgiguard_trace_feed(fcgiguard_trace *trace,
                             const uint8_t *input,
                             size_t len,
                             fcgiguard_error *error);

/*
 The stream has ended; makes events, output and error.

 `trace` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_trace_finish(fcgiguard_trace *trace, fcgiguard_error *error);

/*
 The events, one a line. Valid until the trace is fed, finished or freed.

 `trace` is NULL or valid.
 */
const char *fcgiguard_trace_events(fcgiguard_trace *trace);

/*
 What the machine answered by itself, in hex. Valid as the events.

 `trace` is NULL or valid.
 */
const char *fcgiguard_trace_output(fcgiguard_trace *trace);

/*
 "rule offset code" of the broken rule, or "". Valid as the events.

 `trace` is NULL or valid.
 */
const char *fcgiguard_trace_error(fcgiguard_trace *trace);

/*
 In a program that exec mode started: 1 and the worker's handle; 0 when no manager started this process.

 `worker` is writable; `error` is NULL or valid.
 */
int32_t fcgiguard_worker_from_environment(fcgiguard_worker **worker, fcgiguard_error *error);

/*
 Frees a worker; NULL is allowed.

 `worker` is NULL or a handle of this kind that is not used afterwards.
 */
void fcgiguard_worker_free(fcgiguard_worker *worker);

/*
 Says that this worker can serve. The first wait says it too.

 `worker` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_worker_ready(fcgiguard_worker *worker, fcgiguard_error *error);

/*
 Waits for a connection before an accept of the program's own: 1 when one is there (the worker counts as busy from here
 on; accept may still find that another worker was faster), 0 when the worker should leave, 2 when the time is over.

 `worker` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_worker_wait(fcgiguard_worker *worker,
                              int32_t listen_fd,
                              int64_t timeout_ms,
                              fcgiguard_error *error);

/*
 A request begins. No system call.

 `worker` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_worker_pre_dispatch(fcgiguard_worker *worker, fcgiguard_error *error);

/*
 The request is done: 1 go on, 0 leave. No system call.

 `worker` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_worker_post_dispatch(fcgiguard_worker *worker, fcgiguard_error *error);

/*
 1 if the worker should leave.

 `worker` is NULL or valid.
 */
int32_t fcgiguard_worker_is_leaving(fcgiguard_worker *worker);

/*
 The request under way may take until so many milliseconds from now.

 `worker` is valid; `error` is NULL or valid.
 */
int32_t fcgiguard_worker_extend_deadline(fcgiguard_worker *worker, int64_t ms, fcgiguard_error *error);

/*
 Tells the manager that restarting cannot help: it stops the whole pool, unless others serve and this one, of the first
 generation, has not been ready. The program should exit then.

 `worker` is valid; `why` is NUL-terminated; `error` is NULL or valid.
 */
int32_t fcgiguard_worker_fatal(fcgiguard_worker *worker,
                               const char *why,
                               fcgiguard_error *error);

/*
 The generation of code that this worker belongs to; 0 for NULL.

 `worker` is NULL or valid.
 */
int32_t fcgiguard_worker_generation(fcgiguard_worker *worker);

/*
 Readable when the manager nudges or has died, for loops of the program's own; -1 for NULL.

 `worker` is NULL or valid.
 */
int32_t fcgiguard_worker_lifeline_fd(fcgiguard_worker *worker);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FCGIGUARD_H */
