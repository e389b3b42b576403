"""The fixtures themselves: four real web servers in front of real FastCGI programs, nothing of ours in between."""
import pytest
import servers
import web


@pytest.mark.parametrize("front", web.ALL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("app", [servers.fcgi_pm, servers.php_cgi], ids=lambda a: a.__name__)
def test_web_server_reaches_a_real_application(front, app, folder, transport):
    with app(folder, transport) as s, front(folder, s.address, s.params) as w:
        answer = w.get("/x?a=1")
        assert answer.status == 200, (answer, w.errors())
        assert b"uri=/x?a=1" in answer.body
        assert w.get("/x", method="POST", body=b"b" * 70000).body.endswith(b"body=70000\n")
