"""The web servers of the matrix: each one process with a port for every worker, everything it writes inside its folder.

Settings are the server's own defaults but for sizes (bodies of 50 MB) and what CGI needs: the split of a path at the script's name,
/x. docroot/x is a link to worker.php, since php-cgi must find a file where SCRIPT_FILENAME points.
"""
import glob
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from process import Process, wait_listening
from servers import need


@dataclass
class Route:
    """One worker as a server sees it: its pool's socket, or for mod_fcgid the command that it starts."""

    name: str
    address: str
    argv: list
    env: dict
    port: int = 0


@dataclass
class Front:
    name: str
    folder: Path
    process: Process

    def log(self):
        file = self.folder / "error.log"
        return (file.read_text(errors="replace") if file.exists() else "") + self.process.output()


def give_ports(routes):
    """Free ports of 127.0.0.1, all different since all are held at once."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in routes]
        for route, s in zip(routes, held, strict=True):
            s.bind(("127.0.0.1", 0))
            route.port = s.getsockname()[1]


def quoted(argv):
    """A command line in which no word needs quotes of its own (mod_fcgid splits at spaces)."""
    assert not any(" " in str(a) or '"' in str(a) for a in argv), argv
    return " ".join(map(str, argv))


def nginx(folder, docroot, routes, keep):
    temp = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = f"""daemon off;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 512; }}
http {{
access_log off;
{temp}
client_max_body_size 64m;
fastcgi_keep_conn {"on" if keep else "off"};
"""
    for r in routes:
        text += f"""upstream {r.name} {{ server unix:{r.address}; {"keepalive 2;" if keep else ""} }}
server {{
    listen 127.0.0.1:{r.port};
    root {docroot};
    location / {{
        fastcgi_split_path_info ^(/x)(/.*)?$;
        include /etc/nginx/fastcgi_params;
        fastcgi_param PATH_INFO $fastcgi_path_info;
        fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
        fastcgi_pass {r.name};
    }}
}}
"""
    (folder / "conf").write_text(text + "}\n")
    return [need("nginx", "nginx-light"), "-e", folder / "error.log", "-p", folder, "-c", folder / "conf"]


def apache_base(folder, modules):
    where = "/usr/lib/apache2/modules"
    load = "".join(f"LoadModule {m}_module {where}/mod_{m}.so\n" for m in modules if glob.glob(f"{where}/mod_{m}.so"))
    return f"""ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
Mutex file:{folder}
{load}
# One process: each keeps connections of its own, and together they must stay below the number of workers.
StartServers 1
ServerLimit 1
ThreadsPerChild 32
MaxRequestWorkers 32
"""


def apache(folder, docroot, routes, keep):
    text = apache_base(folder, ("mpm_event", "authz_core", "proxy", "proxy_fcgi"))
    for r in routes:
        text += f"""Listen 127.0.0.1:{r.port}
<VirtualHost 127.0.0.1:{r.port}>
    ProxyPass "/" "unix:{r.address}|fcgi://{r.name}/" retry=0 {"enablereuse=on max=2" if keep else ""}
    ProxyFCGISetEnvIf "true" SCRIPT_FILENAME "{docroot}/x"
    ProxyFCGISetEnvIf "reqenv('SCRIPT_NAME') =~ m#^/x(/.*)$#" PATH_INFO "$1"
    ProxyFCGISetEnvIf "true" SCRIPT_NAME "/x"
</VirtualHost>
"""
    (folder / "conf").write_text(text)
    return [need("apache2", "apache2-bin"), "-DFOREGROUND", "-f", folder / "conf"]


def fcgid(folder, docroot, routes, keep):
    text = apache_base(folder, ("mpm_event", "authz_core", "fcgid")) + f"""
FcgidIPCDir {folder}/ipc
FcgidProcessTableFile {folder}/ipc/table
FcgidMaxRequestLen 67108864
# A process (here: a whole pool) that broke an answer is ended and seen to be gone within so many seconds, not 3.
FcgidErrorScanInterval 1
FcgidZombieScanInterval 1
<Directory {docroot}>
    Require all granted
    Options ExecCGI FollowSymLinks
    SetHandler fcgid-script
</Directory>
"""
    (folder / "ipc").mkdir()
    for r in routes:
        env = "".join(f"    FcgidInitialEnv {k} {v}\n" for k, v in r.env.items())
        text += f"""Listen 127.0.0.1:{r.port}
<VirtualHost 127.0.0.1:{r.port}>
    DocumentRoot {docroot}
    FcgidMaxProcessesPerClass 3
    FcgidInitialEnv PATH /usr/local/bin:/usr/bin:/bin
{env}    FcgidWrapper "{quoted(r.argv)}" virtual
</VirtualHost>
"""
    (folder / "conf").write_text(text)
    return [need("apache2", "apache2-bin"), "-DFOREGROUND", "-f", folder / "conf"]


def lighttpd(folder, docroot, routes, keep):
    text = f"""server.modules = ("mod_fastcgi")
server.document-root = "{docroot}"
server.bind = "127.0.0.1"
server.port = {routes[0].port}
server.errorlog = "{folder}/error.log"
server.upload-dirs = ("{folder}")
"""
    for r in routes:
        app = f'fastcgi.server = ("/x" => (("socket" => "{r.address}", "check-local" => "disable")))'
        # The first port is the server's own: a condition on it would open it twice.
        text += f'$SERVER["socket"] == "127.0.0.1:{r.port}" {{ {app} }}\n'
    (folder / "conf").write_text(text)
    return [need("lighttpd", "lighttpd"), "-D", "-f", folder / "conf"]


def haproxy(folder, docroot, routes, keep):
    text = """global
  maxconn 200
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
"""
    for r in routes:
        text += f"""frontend f_{r.name}
  bind 127.0.0.1:{r.port}
  default_backend b_{r.name}
backend b_{r.name}
  use-fcgi-app a_{r.name}
  server s unix@{r.address} proto fcgi
fcgi-app a_{r.name}
  docroot {docroot}
  path-info ^(/x)(/.*)?$
  log-stderr stdout format raw daemon
  {"" if keep else "no "}option keep-conn
"""
    (folder / "conf").write_text(text)
    return [need("haproxy", "haproxy"), "-db", "-f", folder / "conf"]


def caddy(folder, docroot, routes, keep):
    text = "{\n\tadmin off\n\tauto_https off\n}\n"
    for r in routes:
        text += f"""http://:{r.port} {{
	bind 127.0.0.1
	reverse_proxy unix/{r.address} {{
		transport fastcgi {{
			root {docroot}
			split /x
			capture_stderr
		}}
	}}
}}
"""
    (folder / "conf").write_text(text)
    return [need("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", folder / "conf"]


@dataclass
class Kind:
    """A web server: how it is set up, in which modes, and how it says its version."""

    title: str
    setup: object
    # False: a connection for each request; True: kept connections to the application.
    modes: tuple
    version: tuple
    starts_workers: bool = False


KINDS = {
    "nginx": Kind("nginx", nginx, (False, True), ("nginx", "-v")),
    "apache": Kind("Apache mod_proxy_fcgi", apache, (False, True), ("apache2", "-v")),
    "fcgid": Kind("Apache mod_fcgid", fcgid, (False,), ("apache2", "-v"), starts_workers=True),
    "lighttpd": Kind("lighttpd", lighttpd, (False,), ("lighttpd", "-v")),
    "haproxy": Kind("HAProxy", haproxy, (False, True), ("haproxy", "-v")),
    "caddy": Kind("Caddy", caddy, (False,), ("caddy", "version")),
}


def package_version(package):
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False)
    return done.stdout or "?"


@contextmanager
def start(name, folder, docroot, routes, keep):
    folder = Path(folder) / f"{name}.{'keep' if keep else 'once'}"
    folder.mkdir()
    give_ports(routes)
    argv = KINDS[name].setup(folder, docroot, routes, keep)
    with Process(argv, folder, name="out", env={"HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_DATA_HOME": folder}) as process:
        for route in routes:
            wait_listening(f"127.0.0.1:{route.port}", process)
        yield Front(name, folder, process)
