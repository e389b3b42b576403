/* What the files of the libfcgi-compatible library share.
 *
 *  thread --has--> acceptor (one for each listening socket) --hand--> request in hand <--paramsPtr-- FCGX_Request
 *
 * A request in hand belongs to its acceptor's responder until it is finished or detached. Whoever uses it holds the
 * acceptor's lock; a detached one needs none. Acceptors and requests are never given back to malloc but used again, so
 * that a pointer to one that has just changed hands is safe to look at.
 */
#ifndef FCGIGUARD_SHIM_H
#define FCGIGUARD_SHIM_H

#include "../../include/fcgiguard.h"
#include "../../include/fcgiguard_fcgiapp.h"
#include <pthread.h>
#include <stddef.h>

/* libfcgi's own sizes are alike; more is held back by the library. */
enum { IN_SIZE = 8192, OUT_SIZE = 8192, ERR_SIZE = 1024 };

struct acceptor {
    pthread_mutex_t lock;
    struct acceptor *next; /* of the thread, or of the unused ones */
    int fd;
    int generation; /* of the process: a fork makes the old ones useless */
    int hands_over; /* requests are detached at once: others finish them */
    int coming; /* its thread has ended a request and is not back; guarded as the counters are */
    fcgiguard_responder *responder;
    struct Params *hand;
};

enum source { SOURCE_STDIN, SOURCE_DATA };

/* The request in hand; the name is the one that libfcgi's header has for it. */
struct Params {
    struct Params *next;
    struct acceptor *acceptor; /* NULL when detached; atomic */
    int generation;
    fcgiguard_request *request;
    fcgiguard_error *error;
    FCGX_Request *of;
    char **envp;
    enum source source;
    FCGX_Stream in, out, err;
    /* One byte in front, for the byte that is put back. */
    unsigned char in_buffer[1 + IN_SIZE];
    unsigned char out_buffer[OUT_SIZE];
    unsigned char err_buffer[ERR_SIZE];
};

/* Before and after using p->request; enter gives what leave takes. */
struct acceptor *shim_enter(struct Params *p);
void shim_leave(struct acceptor *a);

void shim_streams_init(struct Params *p);
/* An FCGX error for a code of the library. */
int shim_errno(int64_t code);

#endif
