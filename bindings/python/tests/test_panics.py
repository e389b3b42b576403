"""A panic of the native half is an InternalError in Python, and its object is not used again."""

import os
import socket
import threading

import fcgi
import pytest
from process import wait_until

import fcgiguard
from fcgiguard import _fcgiguard as native


@pytest.fixture
def panic_in():
    yield native._panic_in
    native._panic_in("")


def calls():
    listening = socket.create_server(("127.0.0.1", 0))
    yield "NativePool", native.NativePool(), "addresses", lambda it: it.addresses()
    yield "NativeClient", native.NativeClient(), "set", lambda it: it.set("timeout", "1s")
    yield "Connection", native.Connection(), "is_idle", lambda it: it.is_idle
    yield "Crew", native.Crew(), "claim", lambda it: it.claim()
    yield "Responder", native.Responder(listening.fileno()), "poll", lambda it: it.poll()
    yield "Prober", native.Prober("unix:/nowhere", []), "wake_in", lambda it: it.wake_in()
    yield "Trace", native.Trace("responder"), "finish", lambda it: it.finish()
    listening.close()


def test_a_panic_is_an_internal_error_and_poisons_its_object_alone(panic_in, capfd):
    for class_, broken, name, call in calls():
        panic_in(name)
        with pytest.raises(fcgiguard.InternalError, match=f"^{name}: forced in {name} ") as caught:
            call(broken)
        assert (caught.value.code, caught.value.name) == (-901, "internal"), class_
        for _ in range(2):
            with pytest.raises(fcgiguard.UsageError, match="cannot be used any more") as caught:
                call(broken)
            assert caught.value.name == "poisoned", class_
    # Others of the same classes are as good as ever; where the panic was is on stderr, for the report.
    for _class, whole, _name, call in calls():
        call(whole)
    assert "guard.rs" in capfd.readouterr().err


def test_a_panic_where_there_is_no_object_yet_and_in_a_function(panic_in):
    for name, call in [("new", native.NativeClient), ("parse_address", lambda: native.parse_address(":9000")),
                       ("probe_json", lambda: fcgiguard.probe("unix:/nowhere"))]:
        panic_in(name)
        with pytest.raises(fcgiguard.InternalError, match=f"forced in {name}"):
            call()
    assert native.parse_address(":9000")


def test_a_panic_in_a_worker_ends_that_worker_and_not_the_pool(serve):
    code = """
    import os
    from fcgiguard import _fcgiguard
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/panic":
            _fcgiguard._panic_in("answer")
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]
    """
    with serve(code, dev=False) as site:
        first = site.ask().body
        with pytest.raises(fcgi.Closed):
            site.ask({"PATH_INFO": "/panic"})
        wait_until("said", lambda: "InternalError: answer: forced in answer" in site.log())
        assert site.ask().body not in (b"", first)


def test_a_pool_may_change_its_thread_and_is_refused_in_words_to_two_at_once(folder):
    pool, found = fcgiguard.Pool(listen=f"unix:{folder}/s", workers=1), []

    def elsewhere(use):
        def run():
            try:
                found.append(use())
            except fcgiguard.Error as error:
                found.append(error)
        return threading.Thread(target=run)

    opening = elsewhere(pool.open)
    opening.start()
    opening.join()
    assert found == [None] and pool.addresses == [f"unix:{folder}/s"]
    pool.stop()
    # Steps of several threads meet now and then: each goes through, or is refused.
    threads = [elsewhere(lambda: pool.option("workers")) for _ in range(8)]
    for thread in threads:
        thread.start()
    while pool.step(0.01) != 3:
        pass
    for thread in threads:
        thread.join()
    for each in found[1:]:
        assert each == "1" or isinstance(each, fcgiguard.UsageError) and "another thread" in str(each)
    # The last reference may go in any thread, too.
    last = [pool]
    del pool, threads
    dropping = threading.Thread(target=last.clear)
    dropping.start()
    dropping.join()
