MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::ProcManager::Accept  PREFIX = managed_

PROTOTYPES: DISABLE

int
managed_await(worker, fd, timeout_ms)
    FCGI::Guard::Worker worker
    int fd
    int timeout_ms
  PREINIT:
    int32_t code;
    struct timespec limit;
    struct pollfd fds[2];
  CODE:
    /* Whatever comes from here on waits for the poll, which lets it in: no signal falls between a look and the wait. */
    if (!waiting.holds) (void)sigprocmask(SIG_BLOCK, waiting_deferred(), &waiting.before);
    waiting.holds = TRUE;
    if (PL_sig_pending) {
        RETVAL = 2;
    } else {
        CALL(RETVAL, fcgiguard_worker_wait(worker, fd, 0, error));
        if (RETVAL == 2 && timeout_ms > 0) {
            fds[0].fd = fd;
            fds[1].fd = fcgiguard_worker_lifeline_fd(worker);
            fds[0].events = fds[1].events = POLLIN;
            limit.tv_sec = timeout_ms / 1000;
            limit.tv_nsec = (timeout_ms % 1000) * 1000000L;
            code = ppoll(fds, 2, &limit, &waiting.before);
            if (code > 0) CALL(RETVAL, fcgiguard_worker_wait(worker, fd, 0, error));
        }
    }
    if (RETVAL != 1) {
        waiting_release();
        PERL_ASYNC_CHECK();
    }
  OUTPUT:
    RETVAL

int
managed_next_number(near)
    int near
  CODE:
    RETVAL = fcntl(near, F_DUPFD_CLOEXEC, 0);
    if (RETVAL >= 0) (void)close(RETVAL);
  OUTPUT:
    RETVAL

void
managed_accepted(worker, got)
    FCGI::Guard::Worker worker
    int got
  PREINIT:
    int32_t code;
  CODE:
    waiting_release();
    if (got >= 0) CALL(code, fcgiguard_worker_pre_dispatch(worker, error));

UV
managed_identity_of(number)
    int number
  PREINIT:
    struct stat about;
  CODE:
    RETVAL = number >= 0 && fstat(number, &about) == 0 && S_ISSOCK(about.st_mode) ? (UV)about.st_ino : 0;
  OUTPUT:
    RETVAL
