"""What web servers and workers do otherwise than the cases ask, and why: one row each, exact. Nothing here is a fault of the pool."""
import re
from dataclasses import dataclass, field


@dataclass
class Row:
    """Cells (names, () means all; keep None: both modes) of `case`, what is seen there (a regular expression), why, and who says so."""

    case: str
    fronts: tuple
    workers: tuple
    seen: str
    why: str
    link: str
    keep: bool | None = None
    # Which of two packets comes first decides: a cell without it is well, as long as another of the row has it.
    race: bool = False

    def covers(self, key):
        front, keep, worker, case = key
        return (case == self.case and (not self.fronts or front in self.fronts) and (not self.workers or worker in self.workers)
                and self.keep in (None, keep))


@dataclass
class Verdict:
    ok: bool
    text: str = ""
    row: Row | None = field(default=None)


ROWS = [
    Row("get", ("nginx",), (), r"params \{b'HTTP_HOST': b'127.0.0.1'\}",
        "Debian's fastcgi_params sends HTTP_HOST as `$host`, without the port, and says there why.",
        "https://nginx.org/en/docs/http/ngx_http_core_module.html#var_host"),
    Row("head", ("haproxy",), ("c", "perl", "fcgi_pm", "libfcgi", "flup"), r"status 502",
        "HAProxy answers 502 to a HEAD whose application sends a body. By CGI's rule the application must not, and the server must drop it "
        "if it does. php-cgi, and our Python and PHP, send none; in C and Perl the program decides what it writes.",
        "https://www.rfc-editor.org/rfc/rfc3875#section-4.3.3", race=True),
    Row("double-slash", ("nginx",), (), r"PATH_INFO b'/a/b/'",
        "nginx makes one slash of several before it looks at the path: `merge_slashes off` leaves them.",
        "https://nginx.org/en/docs/http/ngx_http_core_module.html#merge_slashes"),
    Row("double-slash", ("apache", "fcgid"), (), r"PATH_INFO b'/a/b/'",
        "Apache does the same: `MergeSlashes Off` leaves them.",
        "https://httpd.apache.org/docs/2.4/mod/core.html#mergeslashes"),
    Row("double-slash", ("lighttpd",), (), r"PATH_INFO b'/a/b/'",
        "lighttpd simplifies the path before it splits it; REQUEST_URI has what was sent.",
        "https://redmine.lighttpd.net/projects/lighttpd/wiki/Server_http-parseoptsDetails"),
    Row("encoded-slash", ("apache", "fcgid"), (), r"status 404",
        "Apache refuses %2F in a path with 404 unless `AllowEncodedSlashes` says otherwise.",
        "https://httpd.apache.org/docs/2.4/mod/core.html#allowencodedslashes"),
    # 503 on kept connections: php-cgi may have answered and closed while Apache still writes.
    Row("chunked", ("apache",), ("php_cgi",), r"11 bytes, 15 expected.*0 00000000|status 503",
        "mod_proxy_fcgi passes a long chunked body on as it comes, without CONTENT_LENGTH, and php-cgi reads no body without one. Ours, "
        "libfcgi, FCGI.pm and flup read to the end of STDIN.",
        "https://bz.apache.org/bugzilla/show_bug.cgi?id=57087"),
    # The client may still be sending when the 400 is there and the connection closed.
    Row("chunked", ("haproxy",), (), r"status 400|BrokenPipeError|ConnectionResetError",
        "HAProxy must have the whole of a chunked body in one buffer to know its CONTENT_LENGTH, and refuses a longer one: `tune.bufsize`.",
        "https://docs.haproxy.org/2.6/configuration.html#tune.bufsize"),
    Row("chunked", ("caddy",), ("php_cgi",), r"TimeoutError",
        "Caddy 2.6 sends CONTENT_LENGTH -1 for a chunked body, for which php-cgi waits without end; later versions buffer or answer 411. The "
        "others read to the end of STDIN.",
        "https://github.com/caddyserver/caddy/issues/5236"),
    Row("stderr", ("caddy",), (), r"STDERR is not in",
        "`capture_stderr` has no effect before Caddy 2.7.",
        "https://github.com/caddyserver/caddy/pull/5515"),
    Row("death-in-chunked", ("nginx",), ("c", "perl", "python", "php", "fcgi_pm", "libfcgi"), r"told as whole: status 200, 100000 bytes",
        "Without `fastcgi_keep_conn on` nginx takes the end of the connection for the end of the answer, so a broken one without "
        "Content-Length looks whole; with it the client is told. (php-cgi and flup leave STDIN unread, so that their death is a reset, which "
        "nginx sees.)",
        "https://nginx.org/en/docs/http/ngx_http_fastcgi_module.html#fastcgi_keep_conn", keep=False),
    Row("death-in-chunked", ("fcgid",), (), r"told as whole: status 200",
        "mod_fcgid ends the answer as if it were whole, without the last bytes that it had in its buffer; the error log has a line.",
        "https://httpd.apache.org/mod_fcgid/mod/mod_fcgid.html#fcgidoutputbuffersize"),
    Row("death-in-chunked", ("lighttpd",), (), r"told as whole: status 200, 100000 bytes",
        "lighttpd has the whole answer before it sends any of it (`server.stream-response-body` 0) and sends what came with a length of its "
        "own; the error log has a line.",
        "https://redmine.lighttpd.net/projects/lighttpd/wiki/Server_stream-response-bodyDetails"),
    Row("death-in-chunked", ("caddy",), (), r"told as whole: status 200, 100000 bytes",
        "Caddy takes the end of the connection for the end of the answer.",
        "https://caddyserver.com/docs/caddyfile/directives/reverse_proxy#the-fastcgi-transport"),
]


def judge(seen):
    """(front, keep, worker, case) -> Verdict."""
    verdicts = {}
    for key, what in seen.items():
        row = next((r for r in ROWS if r.covers(key)), None)
        if what is None and row is None:
            verdicts[key] = Verdict(True)
        elif what is None and row.race and any(text is not None and row.covers(other) for other, text in seen.items()):
            verdicts[key] = Verdict(True)
        elif what is None:
            verdicts[key] = Verdict(False, f"expected and not seen: {row.seen} ({row.why})")
        elif row is None:
            verdicts[key] = Verdict(False, what)
        else:
            fits = re.search(row.seen, what) is not None
            verdicts[key] = Verdict(fits, what if fits else f"expected {row.seen}, seen: {what}", row)
    return verdicts


def never(verdicts):
    """Rows that no cell used."""
    return [r for r in ROWS if not any(v.row is r for v in verdicts.values())]
