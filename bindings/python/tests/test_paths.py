"""SCRIPT_NAME and PATH_INFO: what web servers really send, and what the application is told."""

import json

import pytest
import web
from process import free_port

from fcgiguard.wsgi import split_path

ECHO = """
    import json
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({name: value for name, value in environ.items() if isinstance(value, str)}).encode()]
"""


def nginx_with(folder, location):
    port = free_port()
    argv = [web.need("nginx", "nginx-light"), "-e", f"{folder}/nginx.error.log", "-p", folder, "-c",
            web.nginx_conf(folder, port, location)]
    return web.serve("nginx", folder, port, argv)


def apache_with(folder, directives):
    port = free_port()
    modules = "/usr/lib/apache2/modules"
    names = ("mpm_event", "authz_core", "proxy", "proxy_fcgi", "env", "setenvif")
    load = "".join(f"LoadModule {name}_module {modules}/mod_{name}.so\n" for name in names)
    conf = f"{folder}/apache.conf"
    with open(conf, "w") as file:
        file.write(f"ServerRoot {folder}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {folder}/apache.pid\n"
                   f"ErrorLog {folder}/apache.error.log\nMutex file:{folder}\n{load}DocumentRoot {folder}\n{directives}\n")
    return web.serve("apache", folder, port, [web.need("apache2", "apache2-bin"), "-DFOREGROUND", "-f", conf])


def lighttpd_with(folder, fastcgi):
    port = free_port()
    conf = f"{folder}/lighttpd.conf"
    with open(conf, "w") as file:
        file.write(f'server.modules = ("mod_fastcgi")\nserver.document-root = "{folder}"\nserver.bind = "127.0.0.1"\n'
                   f'server.port = {port}\nserver.errorlog = "{folder}/lighttpd.error.log"\nfastcgi.server = ({fastcgi})\n')
    return web.serve("lighttpd", folder, port, [web.need("lighttpd", "lighttpd"), "-D", "-f", conf])


STOCK = "include /etc/nginx/fastcgi_params; fastcgi_pass unix:{address};"
CASES = {
    "nginx stock": (nginx_with, "location / { %s }" % STOCK, [], "/a/b%20c?q=1", ("", "/a/b c")),
    "nginx stock root": (nginx_with, "location / { %s }" % STOCK, [], "/", ("", "/")),
    "nginx stock below a mount": (nginx_with, "location /app { %s }" % STOCK, ["--mount", "/app"], "/app/x", ("/app", "/x")),
    "nginx stock at a mount": (nginx_with, "location /app { %s }" % STOCK, ["--mount", "/app"], "/app", ("/app", "")),
    "nginx path_info is all": (nginx_with, "location / { fastcgi_param PATH_INFO $fastcgi_script_name; %s }" % STOCK, [],
                               "/a/b", ("", "/a/b")),
    "nginx path_info is all, mount": (nginx_with, "location / { fastcgi_param PATH_INFO $fastcgi_script_name; %s }" % STOCK,
                                      ["--mount", "/a"], "/a/b", ("/a", "/b")),
    "nginx empty script name": (nginx_with, "location / { fastcgi_param PATH_INFO $fastcgi_script_name; fastcgi_param SCRIPT_NAME "
                                "''; fastcgi_param REQUEST_METHOD $request_method; fastcgi_pass unix:{address}; }", [],
                                "/a/b", ("", "/a/b")),
    "nginx split": (nginx_with, "location /app { fastcgi_split_path_info ^(/app)(.*)$; fastcgi_param PATH_INFO "
                    "$fastcgi_path_info; %s }" % STOCK, [], "/app/a/b", ("/app", "/a/b")),
    "apache proxypass": (apache_with, 'ProxyPass "/" "unix:{address}|fcgi://pool/"', [], "/a/b%20c?q=1", ("", "/a/b c")),
    "apache proxypass root": (apache_with, 'ProxyPass "/" "unix:{address}|fcgi://pool/"', [], "/", ("", "/")),
    "apache proxypass below a mount": (apache_with, 'ProxyPass "/app/" "unix:{address}|fcgi://pool/"', [], "/app/a/b",
                                       ("/app", "/a/b")),
    "apache proxypass mount": (apache_with, 'ProxyPass "/app/" "unix:{address}|fcgi://pool/app/"', ["--mount", "/app"],
                               "/app/a/b", ("/app", "/a/b")),
    "apache sethandler": (apache_with, '<Location "/">\nSetHandler "proxy:unix:{address}|fcgi://pool/"\n</Location>',
                          ["--mount", "/"], "/a/b", ("", "/a/b")),
    "apache sethandler mount": (apache_with, '<Location "/app">\nSetHandler "proxy:unix:{address}|fcgi://pool/"\n</Location>',
                                [], "/app/b", ("/app", "/b")),
    "lighttpd root": (lighttpd_with, '"/" => (("socket" => "{address}", "check-local" => "disable", '
                      '"fix-root-scriptname" => "enable"))', [], "/a/b%20c?q=1", ("", "/a/b c")),
    "lighttpd root, unfixed": (lighttpd_with, '"/" => (("socket" => "{address}", "check-local" => "disable"))', ["--mount", "/"],
                               "/a/b", ("", "/a/b")),
    "lighttpd prefix": (lighttpd_with, '"/app" => (("socket" => "{address}", "check-local" => "disable"))', [], "/app/a/b",
                        ("/app", "/a/b")),
}


@pytest.mark.parametrize("case", CASES)
def test_path_behind_a_web_server(serve, folder, case):
    server, config, flags, url, expected = CASES[case]
    with serve(ECHO, *flags, "--socket-mode", "0666") as site:
        with server(folder, config.replace("{address}", site.address)) as front:
            answer = front.get(url)
            assert answer.status == 200, front.errors()
            seen = json.loads(answer.body)
            got = (seen["SCRIPT_NAME"], seen["PATH_INFO"])
            about = {name: seen.get(name) for name in ("REQUEST_URI", "SCRIPT_FILENAME", "SERVER_SOFTWARE", "PATH_TRANSLATED")}
            assert got == expected, about
            assert seen["QUERY_STRING"] == ("q=1" if "?" in url else "")


def split(mount=None, **params):
    environ = {"SCRIPT_NAME": "", "PATH_INFO": "", **params}
    split_path(environ, mount)
    return environ["SCRIPT_NAME"], environ["PATH_INFO"]


def test_rules_that_no_web_server_here_shows():
    # A mount with the same name as what is below it.
    assert split(SCRIPT_NAME="/a", PATH_INFO="/a", REQUEST_URI="/a/a") == ("/a", "/a")
    assert split(SCRIPT_NAME="/a", PATH_INFO="/a", REQUEST_URI="/a?x") == ("", "/a")
    assert split("/a", SCRIPT_NAME="/a", PATH_INFO="/a", REQUEST_URI="/a/a") == ("/a", "/a")
    # Not below the mount: the application sees the whole path, and can say 404.
    assert split("/app", SCRIPT_NAME="/apple") == ("", "/apple")
    # PEP 3333: SCRIPT_NAME is never a lone slash.
    assert split(SCRIPT_NAME="/", PATH_INFO="/x") == ("", "/x")
    assert split(SCRIPT_NAME="/") == ("", "/")
    # Any other server is believed.
    assert split(SCRIPT_NAME="/app.fcgi") == ("/app.fcgi", "")
