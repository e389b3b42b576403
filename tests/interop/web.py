"""Real web servers on a loopback port, each with one FastCGI application behind it."""
import glob
import http.client
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from process import Process, free_port, wait_listening
from servers import need


@dataclass
class Answer:
    status: int
    head: dict
    body: bytes

    @property
    def pid(self):
        return int(self.head["x-worker"])


@dataclass
class Web:
    name: str
    port: int
    process: Process
    folder: str

    def get(self, path="/x", timeout=10.0, method="GET", body=None):
        """One request on a new connection; OSError or http.client.HTTPException when there was no whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def errors(self):
        log = Path(self.folder) / f"{self.name}.error.log"
        return (log.read_text(errors="replace") if log.exists() else "") + self.process.output()


@contextmanager
def serve(name, folder, port, argv):
    with Process(argv, folder, name=name) as process:
        wait_listening(f"127.0.0.1:{port}", process)
        yield Web(name, port, process, folder)


def params_of(params):
    return "".join(f"fastcgi_param {name} {value};\n" for name, value in (params or {}).items())


def nginx_conf(folder, port, location):
    """A whole nginx.conf around the text of one server block, everything it writes inside `folder`."""
    temp = "".join(f"{kind}_temp_path {folder}/nginx.{kind};\n" for kind in
                   ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = Path(folder) / "nginx.conf"
    conf.write_text(f"""daemon off;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error.log info;
events {{ worker_connections 512; }}
http {{
access_log off;
{temp}
server {{ listen 127.0.0.1:{port};
{location}
}}
}}
""")
    return conf


def nginx(folder, address, params=None, extra=""):
    """nginx with its own fastcgi_params and `fastcgi_pass` to the address; `extra` goes into the location."""
    port = free_port()
    upstream = f"unix:{address}" if address.startswith("/") else address
    # Debian's file; a SCRIPT_FILENAME is the application's matter.
    location = f"location / {{ include /etc/nginx/fastcgi_params;\n{params_of(params)}fastcgi_pass {upstream};\n{extra} }}"
    return serve("nginx", folder, port, [need("nginx", "nginx-light"), "-e", f"{folder}/nginx.error.log", "-p", folder, "-c",
                                         nginx_conf(folder, port, location)])


def apache(folder, address, params=None, reuse=False, extra=""):
    """Apache with mod_proxy_fcgi; `reuse` keeps its connections (enablereuse); `extra` comes before its ProxyPass."""
    port = free_port()
    modules = "/usr/lib/apache2/modules"
    load = "".join(f"LoadModule {m}_module {modules}/mod_{m}.so\n" for m in
                   ("mpm_event", "authz_core", "alias", "proxy", "proxy_fcgi", "env", "setenvif")
                   if glob.glob(f"{modules}/mod_{m}.so"))
    on = " enablereuse=on" if reuse else ""
    # As in Apache's own manual: for a unix socket the host part is a name only.
    if address.startswith("/"):
        target = f'ProxyPass "/" "unix:{address}|fcgi://pool/"{on}'
    else:
        target = f'ProxyPass "/" "fcgi://{address}/"{on}'
    set_params = "".join(f'ProxyFCGISetEnvIf "true" {name} "{value}"\n' for name, value in (params or {}).items())
    conf = Path(folder) / "apache.conf"
    conf.write_text(f"""ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/apache.pid
ErrorLog {folder}/apache.error.log
Mutex file:{folder}
{load}
{extra}
{target}
{set_params}
""")
    return serve("apache", folder, port, [need("apache2", "apache2-bin"), "-DFOREGROUND", "-f", conf])


def lighttpd(folder, address, params=None):
    port = free_port()
    where = f'"socket" => "{address}"' if address.startswith("/") else \
        f'"host" => "{address.rpartition(":")[0]}", "port" => {address.rpartition(":")[2]}'
    conf = Path(folder) / "lighttpd.conf"
    env = ", ".join(f'"{name}" => "{value}"' for name, value in (params or {}).items())
    conf.write_text(f"""server.modules = ("mod_fastcgi", "mod_setenv")
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{folder}/lighttpd.error.log"
setenv.set-environment = ({env})
fastcgi.server = ("/" => (({where}, "check-local" => "disable", "fix-root-scriptname" => "enable")))
""")
    return serve("lighttpd", folder, port, [need("lighttpd", "lighttpd"), "-D", "-f", conf])


def haproxy(folder, address, params=None):
    port = free_port()
    upstream = f"unix@{address}" if address.startswith("/") else address
    conf = Path(folder) / "haproxy.cfg"
    params = dict(params or {})
    # HAProxy's own SCRIPT_FILENAME, docroot and path, wins over set-param: the script is linked to where that points.
    if "SCRIPT_FILENAME" in params:
        (Path(folder) / "x").symlink_to(params.pop("SCRIPT_FILENAME"))
    set_params = "".join(f"  set-param {name} str({value})\n" for name, value in params.items())
    conf.write_text(f"""global
  maxconn 100
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  use-fcgi-app a
  server s {upstream} proto fcgi
fcgi-app a
  docroot {folder}
{set_params}
""")
    return serve("haproxy", folder, port, [need("haproxy", "haproxy"), "-db", "-f", conf])


ALL = [nginx, apache, lighttpd, haproxy]
