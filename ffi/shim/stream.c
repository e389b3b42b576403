/* The three streams of a request: FCGX_Get*, FCGX_Put*.
 *
 * Small pieces gather in the request's buffers; pieces as large as a buffer go straight between the caller's memory and
 * the library.
 */
#include "shim.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int shim_errno(int64_t code)
{
    const char *name = fcgiguard_code_name((int32_t)code);

    if (!name) return EIO;
    if (!strcmp(name, "aborted")) return EPIPE;
    if (!strcmp(name, "timeout")) return ETIMEDOUT;
    if (!strncmp(name, "protocol", 8)) return FCGX_PROTOCOL_ERROR;
    if (!strcmp(name, "no_request") || !strcmp(name, "wrong_state") || !strcmp(name, "wrong_process")) {
        return FCGX_CALL_SEQ_ERROR;
    }
    return EIO;
}

static struct Params *of(FCGX_Stream *stream) { return stream->data; }

/* Reads at most len bytes; 0 at the end and for an error, which the stream remembers. */
static size_t take(FCGX_Stream *stream, unsigned char *into, size_t len)
{
    struct Params *p = of(stream);
    struct acceptor *a = shim_enter(p);
    int64_t count = p->source == SOURCE_DATA ? fcgiguard_request_read_data(p->request, into, len, p->error)
                                             : fcgiguard_request_read(p->request, into, len, p->error);

    shim_leave(a);
    if (count > 0) return (size_t)count;
    if (count < 0) stream->FCGI_errno = shim_errno(count);
    stream->isClosed = 1;
    return 0;
}

static void fill(FCGX_Stream *stream)
{
    struct Params *p = of(stream);
    size_t count;

    if (stream->isClosed) return;
    /* The byte before: it may be put back. */
    if (stream->rdNext > stream->stopUnget) {
        p->in_buffer[0] = stream->rdNext[-1];
        stream->stopUnget = p->in_buffer;
    } else {
        stream->stopUnget = p->in_buffer + 1;
    }
    count = take(stream, p->in_buffer + 1, IN_SIZE);
    stream->rdNext = p->in_buffer + 1;
    stream->stop = stream->wrNext = stream->rdNext + count;
}

static int give(FCGX_Stream *stream, const unsigned char *bytes, size_t len)
{
    struct Params *p = of(stream);
    struct acceptor *a = shim_enter(p);
    int64_t done = stream == &p->err ? fcgiguard_request_write_error(p->request, bytes, len, p->error)
                                     : fcgiguard_request_write(p->request, bytes, len, p->error);

    shim_leave(a);
    if (done >= 0) return 0;
    stream->FCGI_errno = shim_errno(done);
    stream->isClosed = 1;
    return EOF;
}

static unsigned char *room_of(FCGX_Stream *stream)
{
    struct Params *p = of(stream);

    return stream == &p->err ? p->err_buffer : p->out_buffer;
}

static void empty(FCGX_Stream *stream, int do_close)
{
    unsigned char *start = room_of(stream);
    size_t len = (size_t)(stream->wrNext - start);

    stream->wrNext = start;
    if (len > 0 && !stream->isClosed) give(stream, start, len);
    if (do_close) {
        stream->isClosed = 1;
        stream->rdNext = stream->stop = stream->wrNext;
    }
}

static void reader(struct Params *p)
{
    FCGX_Stream *stream = &p->in;

    memset(stream, 0, sizeof *stream);
    stream->isReader = 1;
    stream->rdNext = stream->wrNext = stream->stop = stream->stopUnget = p->in_buffer + 1;
    stream->fillBuffProc = fill;
    stream->data = p;
}

static void writer(struct Params *p, FCGX_Stream *stream, unsigned char *room, size_t size)
{
    memset(stream, 0, sizeof *stream);
    stream->wrNext = room;
    stream->rdNext = stream->stop = room + size;
    stream->emptyBuffProc = empty;
    stream->data = p;
}

void shim_streams_init(struct Params *p)
{
    p->source = SOURCE_STDIN;
    reader(p);
    writer(p, &p->out, p->out_buffer, OUT_SIZE);
    writer(p, &p->err, p->err_buffer, ERR_SIZE);
}

int FCGX_GetChar(FCGX_Stream *stream)
{
    if (stream->rdNext != stream->stop) return *stream->rdNext++;
    if (!stream->isReader || stream->isClosed) return EOF;
    fill(stream);
    return stream->rdNext != stream->stop ? *stream->rdNext++ : EOF;
}

int FCGX_UnGetChar(int c, FCGX_Stream *stream)
{
    if (c == EOF || !stream->isReader || stream->rdNext == stream->stopUnget) return EOF;
    *--stream->rdNext = (unsigned char)c;
    return c;
}

int FCGX_GetStr(char *str, int n, FCGX_Stream *stream)
{
    size_t done = 0, want = n > 0 ? (size_t)n : 0;

    if (!stream->isReader) return 0;
    while (done < want) {
        size_t have = (size_t)(stream->stop - stream->rdNext);

        if (have > 0) {
            if (have > want - done) have = want - done;
            memcpy(str + done, stream->rdNext, have);
            stream->rdNext += have;
            done += have;
        } else if (stream->isClosed) {
            break;
        } else if (want - done >= IN_SIZE) {
            struct Params *p = of(stream);
            size_t count = take(stream, (unsigned char *)str + done, want - done);

            if (count == 0) break;
            done += count;
            p->in_buffer[0] = (unsigned char)str[done - 1];
            stream->stopUnget = p->in_buffer;
            stream->rdNext = stream->stop = stream->wrNext = p->in_buffer + 1;
        } else {
            fill(stream);
        }
    }
    return (int)done;
}

char *FCGX_GetLine(char *str, int n, FCGX_Stream *stream)
{
    int done = 0, c = 0;

    if (n <= 0) return NULL;
    while (done < n - 1 && (c = FCGX_GetChar(stream)) != EOF) {
        str[done++] = (char)c;
        if (c == '\n') break;
    }
    if (done == 0 && c == EOF) return NULL;
    str[done] = '\0';
    return str;
}

int FCGX_HasSeenEOF(FCGX_Stream *stream) { return stream->isReader && stream->isClosed ? EOF : 0; }

int FCGX_PutChar(int c, FCGX_Stream *stream)
{
    if (stream->isReader || stream->isClosed) return EOF;
    if (stream->wrNext == stream->stop) empty(stream, 0);
    if (stream->isClosed) return EOF;
    *stream->wrNext++ = (unsigned char)c;
    return (unsigned char)c;
}

int FCGX_PutStr(const char *str, int n, FCGX_Stream *stream)
{
    size_t len = n > 0 ? (size_t)n : 0;

    if (stream->isReader || stream->isClosed) return EOF;
    if (len > (size_t)(stream->stop - stream->wrNext)) {
        empty(stream, 0);
        if (stream->isClosed) return EOF;
        if (len >= (size_t)(stream->stop - stream->wrNext)) {
            return give(stream, (const unsigned char *)str, len) == 0 ? n : EOF;
        }
    }
    memcpy(stream->wrNext, str, len);
    stream->wrNext += len;
    return (int)len;
}

int FCGX_PutS(const char *str, FCGX_Stream *stream)
{
    size_t len = strlen(str), done = 0;

    /* A count of bytes is an int here; nothing is lost of what is longer. */
    while (len - done > INT_MAX) {
        if (FCGX_PutStr(str + done, INT_MAX, stream) == EOF) return EOF;
        done += INT_MAX;
    }
    return FCGX_PutStr(str + done, (int)(len - done), stream) == EOF ? EOF : (int)(len > INT_MAX ? INT_MAX : len);
}

int FCGX_VFPrintF(FCGX_Stream *stream, const char *format, va_list arg)
{
    size_t room;
    char *text;
    va_list again;
    int len;

    if (stream->isReader || stream->isClosed) return EOF;
    room = (size_t)(stream->stop - stream->wrNext);
    va_copy(again, arg);
    len = vsnprintf((char *)stream->wrNext, room, format, arg);
    if (len >= 0 && (size_t)len < room) {
        stream->wrNext += len;
    } else if (len >= 0) {
        text = malloc((size_t)len + 1);
        if (text) {
            vsnprintf(text, (size_t)len + 1, format, again);
            len = FCGX_PutStr(text, len, stream);
            free(text);
        } else {
            stream->FCGI_errno = ENOMEM;
            len = EOF;
        }
    } else {
        stream->FCGI_errno = errno;
        len = EOF;
    }
    va_end(again);
    return len;
}

int FCGX_FPrintF(FCGX_Stream *stream, const char *format, ...)
{
    va_list arg;
    int len;

    va_start(arg, format);
    len = FCGX_VFPrintF(stream, format, arg);
    va_end(arg);
    return len;
}

int FCGX_FFlush(FCGX_Stream *stream)
{
    struct Params *p = of(stream);
    struct acceptor *a;
    int32_t done;

    if (stream->isReader || stream->isClosed) return 0;
    empty(stream, 0);
    if (stream->isClosed) return EOF;
    a = shim_enter(p);
    done = fcgiguard_request_flush(p->request, p->error);
    shim_leave(a);
    if (done >= 0) return 0;
    stream->FCGI_errno = shim_errno(done);
    stream->isClosed = 1;
    return EOF;
}

int FCGX_FClose(FCGX_Stream *stream)
{
    if (stream->wasFCloseCalled) return 0;
    stream->wasFCloseCalled = 1;
    if (stream->isReader) {
        stream->rdNext = stream->wrNext = stream->stop = stream->stopUnget;
        stream->isClosed = 1;
    } else {
        empty(stream, 1);
    }
    return stream->FCGI_errno == 0 ? 0 : EOF;
}

int FCGX_GetError(FCGX_Stream *stream) { return stream->FCGI_errno; }

void FCGX_ClearError(FCGX_Stream *stream)
{
    stream->FCGI_errno = 0;
    /* A writer whose web server is gone, or that was closed, stays closed. */
    if (stream->isReader && !stream->wasFCloseCalled) stream->isClosed = 0;
}

int FCGX_StartFilterData(FCGX_Stream *stream)
{
    struct Params *p = of(stream);

    if (!stream->isReader || !stream->isClosed || stream->wasFCloseCalled || stream->rdNext != stream->stop ||
        p->source != SOURCE_STDIN || fcgiguard_request_role(p->request) != 3) {
        stream->FCGI_errno = FCGX_CALL_SEQ_ERROR;
        return FCGX_CALL_SEQ_ERROR;
    }
    p->source = SOURCE_DATA;
    reader(p);
    return 0;
}

void FCGX_SetExitStatus(int status, FCGX_Stream *stream)
{
    struct Params *p = of(stream);
    struct acceptor *a = shim_enter(p);

    fcgiguard_request_set_app_status(p->request, (uint32_t)status, p->error);
    shim_leave(a);
    if (p->of) p->of->appStatus = status;
}
