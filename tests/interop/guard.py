"""`fcgiguard run` as a fixture."""
from contextlib import contextmanager

from process import Process, children, wait_listening, wait_until


def command(fcgiguard, address, workers, argv, *options):
    return [fcgiguard, "run", "--listen", address, "--workers", str(workers), *options, "--", *map(str, argv)]


def workers_of(process):
    """Pids of the manager's living children."""
    return children(process.pid) if process.running() else []


@contextmanager
def pool(fcgiguard, folder, address, workers, argv, *options):
    """A pool whose workers are all there; yields the manager's Process."""
    with Process(command(fcgiguard, address, workers, argv, *options), folder, name="run") as process:
        wait_listening(address, process)
        wait_until(f"{workers} workers", lambda: len(workers_of(process)) == workers)
        # One that is only observed counts as ready after a while; who tests such a one does not wait for it here.
        if not {"--cooperate", "--ready"} & set(options):
            wait_until("they are ready", lambda: process.output().count("ready after") >= workers)
        yield process
