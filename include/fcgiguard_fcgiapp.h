/* fcgiguard_fcgiapp.h - the calls of libfcgi's fcgiapp.h, on libfcgiguard.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A program written for libfcgi is compiled again, unchanged:
 *
 *     cc app.c $(pkg-config --cflags --libs fcgiguard_fcgiapp)
 *
 * whose include folder has headers under the old names. Names, signatures and meaning are libfcgi's (2.4); where they differ:
 *
 * Threads      A thread has one acceptor for each listening socket, whichever FCGX_Request it uses. A request may be
 *              finished by another thread than the one that accepted it; one request is used by one thread at a time.
 *              Kept connections are waited for together with new ones, so that an idle one holds no thread.
 * Requests     A program that copies or allocates FCGX_Request structures anew needs FCGX_Free only for unfinished ones:
 *              a finished one holds no memory. The members from paramsPtr on say nothing (ipcFd is always -1).
 * Leaving      FCGX_Accept* return a negative number when the program should leave: after FCGX_ShutdownPending, SIGUSR1
 *              (caught from FCGX_Init on, if nobody else catches it; in a manager's worker so are TERM, INT and HUP), when the
 *              listening socket was shut down, or when the manager that started it wants so. Before they do, they wait (a minute at most) until requests that are still in
 *              hand are finished. FCGX_ShutdownPending wakes every thread that waits, from whichever thread's signal handler
 *              it is called (glibc 2.32 and later).
 * Fork         A request stays the parent's: what a child that was forked inside it does with it, fails. When the parent
 *              closes the connection it is ended for both, so that no web server waits for the child's exit.
 * Limits       Heads, bodies and answers have the limits and timeouts of fcgiguard_responder_set; libfcgi has none. A
 *              `Proxy:` header does not become HTTP_PROXY.
 * Plain CGI    FCGX_Accept* serve it too, once in a process; in libfcgi only FCGI_Accept does.
 * Order        stdout and stderr are buffered apart and sent at the latest when the request is finished.
 * Errors       FCGX_GetError gives EPIPE when the web server is gone, ETIMEDOUT, ENOMEM, EIO, or an FCGX_ code.
 *
 * Left out     FCGX_CreateWriter, FCGX_FreeStream: the writing half of a client (cgi-fcgi); use a requester.
 *              OS_*: libfcgi's system layer was never an interface of applications.
 *              Windows' and Tcl's parts of the header.
 */
#ifndef FCGIGUARD_FCGIAPP_H
#define FCGIGUARD_FCGIAPP_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Error codes, besides errno's and EOF. */
#define FCGX_UNSUPPORTED_VERSION -2
#define FCGX_PROTOCOL_ERROR -3
#define FCGX_PARAMS_ERROR -4
#define FCGX_CALL_SEQ_ERROR -5

/* A stream. The members are for fcgio.h and for old programs that look at them; use the functions. */
typedef struct FCGX_Stream {
    unsigned char *rdNext;    /* reader: the next byte */
    unsigned char *wrNext;    /* writer: where the next byte goes */
    unsigned char *stop;      /* end of the bytes, or of the room */
    unsigned char *stopUnget; /* reader: how far back FCGX_UnGetChar goes */
    int isReader;
    int isClosed;
    int wasFCloseCalled;
    int FCGI_errno;
    void (*fillBuffProc)(struct FCGX_Stream *stream);
    void (*emptyBuffProc)(struct FCGX_Stream *stream, int doClose);
    void *data;
} FCGX_Stream;

/* NAME=VALUE strings, NULL at the end: environ(7). */
typedef char **FCGX_ParamArray;

/* Flag of FCGX_InitRequest: a signal ends the wait for a request (-EINTR). */
#define FCGI_FAIL_ACCEPT_ON_INTR 1

typedef struct FCGX_Request {
    int requestId; /* 1 while a request is in hand */
    int role;      /* 1 responder, 2 authorizer, 3 filter */
    FCGX_Stream *in;
    FCGX_Stream *out;
    FCGX_Stream *err;
    char **envp; /* the params; FCGI_ROLE=RESPONDER, AUTHORIZER or FILTER is the first */

    /* Not for programs. */
    struct Params *paramsPtr;
    int ipcFd;
    int isBeginProcessed;
    int keepConnection;
    int appStatus;
    int nWriters;
    int flags;
    int listen_sock;
    int detached;
} FCGX_Request;

/* 1 if descriptor 0 is no listening socket, so that this is a CGI process. */
int FCGX_IsCGI(void);

/* Once, before the first thread: 0, or an error code. FCGX_Accept does it by itself. */
int FCGX_Init(void);

/* Listens on ":port", "host:port" or the path of a unix socket (a stale one is replaced): the descriptor, or -1. */
int FCGX_OpenSocket(const char *path, int backlog);

/* Prepares a request for FCGX_Accept_r on this listening socket (0: as started). 0. */
int FCGX_InitRequest(FCGX_Request *request, int sock, int flags);

/* Waits for a request: 0, or a negative number: leave. One still in hand is finished first. */
int FCGX_Accept_r(FCGX_Request *request);

/* Ends the request: streams, params and envp are gone afterwards. */
void FCGX_Finish_r(FCGX_Request *request);

/* Gives an unfinished request up: its connection is closed without an end (whatever `close` says). */
void FCGX_Free(FCGX_Request *request, int close);

/* The same for a program with one request at a time and no threads. */
int FCGX_Accept(FCGX_Stream **in, FCGX_Stream **out, FCGX_Stream **err, FCGX_ParamArray *envp);
void FCGX_Finish(void);

/* After the end of stdin: the stream goes on with a filter's data. 0, or negative. */
int FCGX_StartFilterData(FCGX_Stream *stream);

/* The exit status that a CGI program would have; the last call before the end counts. */
void FCGX_SetExitStatus(int status, FCGX_Stream *stream);

/* The value of a param, NULL if there is none. Valid until the request is finished. */
char *FCGX_GetParam(const char *name, FCGX_ParamArray envp);

/* The next byte, or EOF. */
int FCGX_GetChar(FCGX_Stream *stream);

/* Puts a byte back, once after each byte read: the byte, or EOF. */
int FCGX_UnGetChar(int c, FCGX_Stream *stream);

/* Reads n bytes; fewer only at the end. */
int FCGX_GetStr(char *str, int n, FCGX_Stream *stream);

/* Reads to the end of the line, at most n - 1 bytes, and ends them with NUL: str, or NULL at the end. */
char *FCGX_GetLine(char *str, int n, FCGX_Stream *stream);

/* EOF if the end has been read, else 0. */
int FCGX_HasSeenEOF(FCGX_Stream *stream);

/* The byte, the number of bytes, or EOF. */
int FCGX_PutChar(int c, FCGX_Stream *stream);
int FCGX_PutStr(const char *str, int n, FCGX_Stream *stream);
int FCGX_PutS(const char *str, FCGX_Stream *stream);
int FCGX_FPrintF(FCGX_Stream *stream, const char *format, ...);
int FCGX_VFPrintF(FCGX_Stream *stream, const char *format, va_list arg);

/* Sends what is buffered: 0 or EOF. Not needed but for server push. */
int FCGX_FFlush(FCGX_Stream *stream);

/* Sends what is buffered, and takes no more: 0 or EOF. */
int FCGX_FClose(FCGX_Stream *stream);

/* 0, an errno, or an FCGX_ code. */
int FCGX_GetError(FCGX_Stream *stream);
void FCGX_ClearError(FCGX_Stream *stream);

/* No further requests, for good. For signal handlers. */
void FCGX_ShutdownPending(void);

/* Detach parts a request from the thread that accepted it (done by itself where needed); attach does nothing. 0 or -1. */
int FCGX_Attach(FCGX_Request *request);
int FCGX_Detach(FCGX_Request *request);

#ifdef __cplusplus
}
#endif

#endif /* FCGIGUARD_FCGIAPP_H */
