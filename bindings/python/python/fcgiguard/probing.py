"""Asks FastCGI servers whether they serve."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from ._fcgiguard import Prober, probe_json, probe_many_json


@dataclass(frozen=True)
class ProbeReport:
    """What a probe found. `outcome` is "alive", "busy" or "dead"; times are microseconds; None is "not known"."""

    address: str
    verdict: str
    outcome: str
    exit: int
    code: int
    method: str
    phase: str
    elapsed_us: int
    detail: str
    line: str
    phases: Mapping[str, int] = field(default_factory=dict)
    queue: Mapping[str, int] | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    http_status: int | None = None
    app_status: int | None = None
    first_byte: int | None = None
    stderr: str = ""

    @property
    def is_alive(self) -> bool:
        return self.outcome == "alive"

    def __str__(self) -> str:
        return self.line


def _options(params: Mapping[str, str] | None, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = [(name, str(value)) for name, value in options.items() if value is not None]
    pairs += [("param", f"{name}={value}") for name, value in (params or {}).items()]
    return pairs


def _report(found: tuple[str, str]) -> ProbeReport:
    fields = json.loads(found[0])
    known = {name: fields[name] for name in ProbeReport.__dataclass_fields__ if name in fields}
    return ProbeReport(line=found[1], **known)


def probe(address: str, *, timeout: str | float | None = None, method: str | None = None, params: Mapping[str, str] | None = None,
          script: str | None = None, expect_status: int | str | None = None, expect_header: str | None = None,
          expect_body: str | None = None) -> ProbeReport:
    """Probes one server and waits for the verdict, at most `timeout` ("250ms", "5s", a number is seconds).

    A dead server is a report, not an exception; a wrong address or option is a UsageError.
    """
    options = dict(timeout=timeout, method=method, script=script, expect_status=expect_status, expect_header=expect_header,
                   expect_body=expect_body)
    return _report(probe_json(address, _options(params, options)))


async def aprobe(address: str, *, timeout: str | float | None = None, method: str | None = None,
                 params: Mapping[str, str] | None = None, script: str | None = None, expect_status: int | str | None = None,
                 expect_header: str | None = None, expect_body: str | None = None) -> ProbeReport:
    """As probe, on asyncio's loop: no thread, one descriptor beside the connection's. Many at once: asyncio.gather.

    A host name is resolved in place, by the system's resolver, which the loop waits for; give numeric addresses where that matters.
    """
    # Half of a worker's imports, were it at the top.
    import asyncio

    options = dict(timeout=timeout, method=method, script=script, expect_status=expect_status, expect_header=expect_header,
                   expect_body=expect_body)
    prober = Prober(address, _options(params, options))
    loop = asyncio.get_running_loop()
    news = asyncio.Event()
    loop.add_reader(prober.fileno(), news.set)
    try:
        while (found := prober.step()) is None:
            news.clear()
            try:
                await asyncio.wait_for(news.wait(), prober.wake_in())
            except asyncio.TimeoutError:
                pass
    finally:
        loop.remove_reader(prober.fileno())
    return _report(found)


def probe_many(addresses: Iterable[str], **options: Any) -> list[ProbeReport]:
    """Probes many servers at once, on this thread; the reports are in the order of the addresses. Options as for `probe`."""
    params = options.pop("params", None)
    return [_report(found) for found in probe_many_json(list(addresses), _options(params, options))]
