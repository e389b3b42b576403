/* FCGI_*: stdio's calls on the streams of the request in hand, or on a FILE. */
#define NO_FCGI_DEFINES
#include "../../include/fcgiguard_stdio.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

FCGI_FILE _fcgi_sF[3];

static int accept_called, is_cgi;
static char **own_environ;

static void streams(FCGX_Stream *in, FCGX_Stream *out, FCGX_Stream *err)
{
    FCGX_Stream *all[] = {in, out, err};
    int i;

    for (i = 0; i < 3; i++) {
        _fcgi_sF[i].stdio_stream = NULL;
        _fcgi_sF[i].fcgx_stream = all[i];
    }
}

int FCGI_Accept(void)
{
    FCGX_Stream *in, *out, *err;
    char **envp;
    int done;

    if (!accept_called) {
        is_cgi = FCGX_IsCGI();
        /* A program that calls exit in the middle of a request has its answer sent. */
        atexit(FCGI_Finish);
        accept_called = 1;
        own_environ = environ;
        if (is_cgi) {
            _fcgi_sF[0].stdio_stream = stdin;
            _fcgi_sF[1].stdio_stream = stdout;
            _fcgi_sF[2].stdio_stream = stderr;
            return 0;
        }
    } else if (is_cgi) {
        return EOF;
    }
    FCGI_Finish();
    done = FCGX_Accept(&in, &out, &err, &envp);
    if (done < 0) return done;
    streams(in, out, err);
    environ = envp;
    return 0;
}

void FCGI_Finish(void)
{
    if (!accept_called || is_cgi) return;
    streams(NULL, NULL, NULL);
    environ = own_environ;
    FCGX_Finish();
}

int FCGI_StartFilterData(void)
{
    return _fcgi_sF[0].fcgx_stream ? FCGX_StartFilterData(_fcgi_sF[0].fcgx_stream) : -1;
}

void FCGI_SetExitStatus(int status)
{
    if (_fcgi_sF[0].fcgx_stream) FCGX_SetExitStatus(status, _fcgi_sF[0].fcgx_stream);
}

/* Before the first request and between two, errors go where the program's own go. */
static FILE *file_of(FCGI_FILE *fp)
{
    if (fp == FCGI_stderr && !fp->fcgx_stream && !fp->stdio_stream) return stderr;
    return fp->stdio_stream;
}

static FCGI_FILE *wrap(FILE *file)
{
    FCGI_FILE *fp = file ? calloc(1, sizeof *fp) : NULL;

    if (fp) fp->stdio_stream = file;
    return fp;
}

/* The wrapper of a stream that is closed. */
static void unwrap(FCGI_FILE *fp)
{
    fp->stdio_stream = NULL;
    fp->fcgx_stream = NULL;
    if (fp < _fcgi_sF || fp >= _fcgi_sF + 3) free(fp);
}

void FCGI_perror(const char *str)
{
    int why = errno;

    if (str && *str) {
        FCGI_fputs(str, FCGI_stderr);
        FCGI_fputs(": ", FCGI_stderr);
    }
    FCGI_fputs(strerror(why), FCGI_stderr);
    FCGI_fputs("\n", FCGI_stderr);
}

FCGI_FILE *FCGI_fopen(const char *path, const char *mode)
{
    FILE *file = fopen(path, mode);
    FCGI_FILE *fp = wrap(file);

    if (file && !fp) fclose(file);
    return fp;
}

int FCGI_fclose(FCGI_FILE *fp)
{
    int done = fp->stdio_stream ? fclose(fp->stdio_stream) : fp->fcgx_stream ? FCGX_FClose(fp->fcgx_stream) : EOF;

    unwrap(fp);
    return done;
}

int FCGI_fflush(FCGI_FILE *fp)
{
    if (!fp) return fflush(NULL);
    if (file_of(fp)) return fflush(file_of(fp));
    return fp->fcgx_stream ? FCGX_FFlush(fp->fcgx_stream) : EOF;
}

FCGI_FILE *FCGI_freopen(const char *path, const char *mode, FCGI_FILE *fp)
{
    if (fp->stdio_stream) {
        fp->stdio_stream = freopen(path, mode, fp->stdio_stream);
    } else {
        if (fp->fcgx_stream) FCGX_FClose(fp->fcgx_stream);
        fp->fcgx_stream = NULL;
        fp->stdio_stream = fopen(path, mode);
    }
    return fp->stdio_stream ? fp : NULL;
}

int FCGI_setvbuf(FCGI_FILE *fp, char *buf, int bufmode, size_t size)
{
    return fp->stdio_stream ? setvbuf(fp->stdio_stream, buf, bufmode, size) : -1;
}

void FCGI_setbuf(FCGI_FILE *fp, char *buf)
{
    if (fp->stdio_stream) setbuf(fp->stdio_stream, buf);
}

int FCGI_fseek(FCGI_FILE *fp, long offset, int whence)
{
    return fp->stdio_stream ? fseek(fp->stdio_stream, offset, whence) : -1;
}

int FCGI_ftell(FCGI_FILE *fp) { return fp->stdio_stream ? (int)ftell(fp->stdio_stream) : -1; }

void FCGI_rewind(FCGI_FILE *fp)
{
    if (fp->stdio_stream) rewind(fp->stdio_stream);
}

int FCGI_fgetpos(FCGI_FILE *fp, fpos_t *pos) { return fp->stdio_stream ? fgetpos(fp->stdio_stream, pos) : -1; }

int FCGI_fsetpos(FCGI_FILE *fp, const fpos_t *pos) { return fp->stdio_stream ? fsetpos(fp->stdio_stream, pos) : -1; }

int FCGI_fgetc(FCGI_FILE *fp)
{
    if (fp->stdio_stream) return fgetc(fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_GetChar(fp->fcgx_stream) : EOF;
}

int FCGI_getchar(void) { return FCGI_fgetc(FCGI_stdin); }

int FCGI_ungetc(int c, FCGI_FILE *fp)
{
    if (fp->stdio_stream) return ungetc(c, fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_UnGetChar(c, fp->fcgx_stream) : EOF;
}

char *FCGI_fgets(char *str, int size, FCGI_FILE *fp)
{
    if (fp->stdio_stream) return fgets(str, size, fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_GetLine(str, size, fp->fcgx_stream) : NULL;
}

int FCGI_fputc(int c, FCGI_FILE *fp)
{
    if (file_of(fp)) return fputc(c, file_of(fp));
    return fp->fcgx_stream ? FCGX_PutChar(c, fp->fcgx_stream) : EOF;
}

int FCGI_putchar(int c) { return FCGI_fputc(c, FCGI_stdout); }

int FCGI_fputs(const char *str, FCGI_FILE *fp)
{
    if (file_of(fp)) return fputs(str, file_of(fp));
    return fp->fcgx_stream ? FCGX_PutS(str, fp->fcgx_stream) : EOF;
}

int FCGI_puts(const char *str)
{
    return FCGI_fputs(str, FCGI_stdout) < 0 || FCGI_putchar('\n') < 0 ? EOF : 0;
}

int FCGI_vfprintf(FCGI_FILE *fp, const char *format, va_list ap)
{
    if (file_of(fp)) return vfprintf(file_of(fp), format, ap);
    return fp->fcgx_stream ? FCGX_VFPrintF(fp->fcgx_stream, format, ap) : EOF;
}

int FCGI_fprintf(FCGI_FILE *fp, const char *format, ...)
{
    va_list ap;
    int done;

    va_start(ap, format);
    done = FCGI_vfprintf(fp, format, ap);
    va_end(ap);
    return done;
}

int FCGI_vprintf(const char *format, va_list ap) { return FCGI_vfprintf(FCGI_stdout, format, ap); }

int FCGI_printf(const char *format, ...)
{
    va_list ap;
    int done;

    va_start(ap, format);
    done = FCGI_vfprintf(FCGI_stdout, format, ap);
    va_end(ap);
    return done;
}

/* size * nmemb, or 0 if that is none or too much. */
static size_t product(size_t size, size_t nmemb)
{
    size_t bytes;

    return __builtin_mul_overflow(size, nmemb, &bytes) ? 0 : bytes;
}

size_t FCGI_fread(void *ptr, size_t size, size_t nmemb, FCGI_FILE *fp)
{
    size_t want = product(size, nmemb), done = 0;

    if (fp->stdio_stream) return fread(ptr, size, nmemb, fp->stdio_stream);
    if (!fp->fcgx_stream || want == 0) return 0;
    while (done < want) {
        int piece = want - done > INT_MAX ? INT_MAX : (int)(want - done);
        int count = FCGX_GetStr((char *)ptr + done, piece, fp->fcgx_stream);

        if (count <= 0) break;
        done += (size_t)count;
        if (count < piece) break;
    }
    return done / size;
}

size_t FCGI_fwrite(void *ptr, size_t size, size_t nmemb, FCGI_FILE *fp)
{
    size_t want = product(size, nmemb), done = 0;

    if (file_of(fp)) return fwrite(ptr, size, nmemb, file_of(fp));
    if (!fp->fcgx_stream || want == 0) return 0;
    while (done < want) {
        int piece = want - done > INT_MAX ? INT_MAX : (int)(want - done);

        if (FCGX_PutStr((const char *)ptr + done, piece, fp->fcgx_stream) == EOF) break;
        done += (size_t)piece;
    }
    return done / size;
}

int FCGI_feof(FCGI_FILE *fp)
{
    if (fp->stdio_stream) return feof(fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_HasSeenEOF(fp->fcgx_stream) : -1;
}

int FCGI_ferror(FCGI_FILE *fp)
{
    if (fp->stdio_stream) return ferror(fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_GetError(fp->fcgx_stream) : -1;
}

void FCGI_clearerr(FCGI_FILE *fp)
{
    if (fp->stdio_stream) clearerr(fp->stdio_stream);
    else if (fp->fcgx_stream) FCGX_ClearError(fp->fcgx_stream);
}

FCGI_FILE *FCGI_tmpfile(void)
{
    FILE *file = tmpfile();
    FCGI_FILE *fp = wrap(file);

    if (file && !fp) fclose(file);
    return fp;
}

int FCGI_fileno(FCGI_FILE *fp) { return file_of(fp) ? fileno(file_of(fp)) : -1; }

FCGI_FILE *FCGI_fdopen(int fd, const char *mode) { return wrap(fdopen(fd, mode)); }

FCGI_FILE *FCGI_popen(const char *cmd, const char *type)
{
    FILE *file = popen(cmd, type);
    FCGI_FILE *fp = wrap(file);

    if (file && !fp) pclose(file);
    return fp;
}

int FCGI_pclose(FCGI_FILE *fp)
{
    int done = fp->stdio_stream ? pclose(fp->stdio_stream) : -1;

    unwrap(fp);
    return done;
}
