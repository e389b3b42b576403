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
 *           starts no thread. A call on a handle that is in use is the error wrong_state.
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
 The reason of a failed call. Made once, passed to any number of calls; each failing call overwrites it, a
 succeeding call leaves it alone. One thread at a time.
 */
typedef struct fcgiguard_error fcgiguard_error;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Makes an empty error (code 0, message ""). Free it with fcgiguard_error_free.
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

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FCGIGUARD_H */
