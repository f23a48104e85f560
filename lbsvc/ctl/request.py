"""`lbctl request`: the same request again and again, and what came of it (load.py does it, load_report.py says it).

Promises: the report goes to standard output, the progress bar to standard error, and only where that is a terminal. Exit 0
where every request was answered with a status below 400, 1 where one failed, 69 where the URL's name has no address, 130
after Ctrl-C, which prints what there is. Called by main.py.
"""

from __future__ import annotations

import datetime
import os
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import click

from lbsvc.config.certificates import CertificateFault
from lbsvc.config.schema import PoolTls
from lbsvc.ctl.client import EX_FAILED, EX_INTERRUPTED, Unreachable
from lbsvc.ctl.load_report import as_json, as_text
from lbsvc.ctl.params import DURATION, RATE
from lbsvc.ctl.session import json_option, the_session
from lbsvc.ctl.target import Target, Unresolvable, Unusable, make_target, resolve
from lbsvc.ctl.turning import the_reactor
from lbsvc.http.load import Dial, Load, Plan
from lbsvc.net.client_tls import ClientTls, UpstreamTls
from lbsvc.net.connector import dial

_REDRAW: Final = 0.1  # seconds
_SPARE_FILES: Final = 64  # descriptors that are not connections


@click.command("request")
@click.argument("url")
@click.option(
    "-n", "--requests", type=click.IntRange(1), help="Requests in all. [default: 1000, or with -d as many as it holds]"
)
@click.option(
    "-c", "--concurrency", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At one time."
)
@click.option("-d", "--duration", type=DURATION, help="Begin none after this time: 10s, 1m.")
@click.option(
    "--rate", type=RATE, help="So many a second, evenly: 100 or 6000/m. Latencies count from when each was due."
)
@click.option("-H", "--header", "headers", multiple=True, help="A further header, 'Name: value'. May be repeated.")
@click.option("-m", "--method", help="[default: GET, or POST with --data]")
@click.option("--data", "body", help="The body; @FILE takes it from a file, @- from standard input.")
@click.option("--timeout", type=DURATION, default=30.0, help="For a whole answer, connecting included. [default: 30s]")
@click.option("--no-keep-alive", "is_single", is_flag=True, help="A connection for each request.")
@click.option("-k", "--insecure", is_flag=True, help="https: believe any certificate.")
@click.option(
    "--cacert", type=click.Path(exists=True, dir_okay=False), help="https: believe those of this CA (PEM) only."
)
@click.option("--unix-socket", type=click.Path(), help="Connect to this socket in place of the URL's host.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    url: str,
    requests: int | None,
    concurrency: int,
    duration: float | None,
    rate: float | None,
    headers: tuple[str, ...],
    method: str | None,
    body: str | None,
    timeout: float,
    is_single: bool,
    insecure: bool,
    cacert: str | None,
    unix_socket: str | None,
) -> None:
    """Ask URL again and again, and say how it was answered: a load generator.

    URL is http://…, https://… or unix:PATH. Connections are kept (HTTP/1.1), redirects not followed. A request has failed
    if it got no whole answer, or one of status 400 or more: then the exit status is 1. Shares of backends are those that
    answers name in X-Backend: a listener with `expose_backend: true` adds it.

    \b
      lbctl request http://127.0.0.1:8080/ -n 10000 -c 100
      lbctl request https://127.0.0.1:8443/ -d 30s --rate 500 -H 'Host: shop.example.com' --cacert ca.pem
    """
    if requests is None and duration is None:
        requests = 1000
    concurrency = min(concurrency, requests or concurrency)
    plan = Plan(requests, concurrency, duration, rate, timeout, not is_single)
    try:
        target = make_target(
            url,
            method=method,
            headers=headers,
            body=None if body is None else _body(body),
            unix_socket=None if unix_socket is None else os.path.abspath(unix_socket),
            is_kept=not is_single,
        )
    except Unusable as error:
        raise click.UsageError(f"{url}: {error}") from None
    tls = _tls(target, insecure, cacert)
    try:
        address = resolve(target.host if target.port else os.path.abspath(target.host), target.port)
    except Unresolvable as error:
        raise Unreachable(f"cannot reach {error}") from None
    _allow_files(concurrency)
    reactor = the_reactor()
    if tls is not None and not hasattr(reactor, "dial"):
        raise click.UsageError("https needs lbsvc's own reactor, which needs epoll")
    load = Load(reactor, _dialler(reactor, address, target.port, tls), target.request, target.method, plan)
    is_interrupted = run(reactor, load)
    said = (load.tally, plan, target.url, is_interrupted)
    the_session(ctx).show(as_json(*said), lambda: as_text(*said))
    ctx.exit(EX_INTERRUPTED if is_interrupted else EX_FAILED if load.tally.failed else 0)


def run(reactor: Any, load: Load) -> bool:
    """Do it all, with a progress bar on a terminal; whether somebody interrupted it."""
    ends = {"interrupted": False}

    def over(result: object) -> None:
        if reactor.running:
            reactor.callLater(0, _stop, reactor)

    def interrupted() -> None:
        ends["interrupted"] = not load.is_over
        load.stop()

    def begin() -> None:
        load.start().addCallback(over)

    reactor.addSystemEventTrigger("before", "shutdown", interrupted)
    reactor.callWhenRunning(begin)
    with _progress(load) as redraw:
        if redraw is not None:
            _repeat(reactor, redraw)
        reactor.run()
        if redraw is not None:
            redraw()
    return ends["interrupted"]


def _stop(reactor: Any) -> None:
    if reactor.running:
        reactor.stop()


def _repeat(reactor: Any, redraw: Callable[[], None]) -> None:
    def again() -> None:
        redraw()
        reactor.callLater(_REDRAW, again)

    reactor.callWhenRunning(again)


def _progress(load: Load) -> AbstractContextManager[Callable[[], None] | None]:
    """A progress bar while this is entered, and what draws it anew; None off a terminal."""
    if not sys.stderr.isatty():
        return nullcontext(None)
    from lbsvc.ctl.load_progress import Progress

    return Progress(load)


def _dialler(reactor: Any, address: str, port: int, tls: ClientTls | None) -> Dial:
    return lambda protocol, timeout, failed: dial(reactor, address, port, protocol, timeout, failed, tls)


def _tls(target: Target, insecure: bool, cacert: str | None) -> ClientTls | None:
    if not target.is_secure:
        if insecure or cacert is not None:
            raise click.UsageError("--insecure and --cacert mean nothing without https")
        return None
    settings = PoolTls(verify=not insecure, ca=None if cacert is None else os.path.abspath(cacert))
    try:
        return UpstreamTls(settings, _time_of_day, ("http/1.1",)).for_host(target.name)
    except CertificateFault as fault:
        raise click.UsageError(f"{cacert}: {fault.message}") from None


def _time_of_day() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


def _body(written: str) -> bytes:
    if not written.startswith("@"):
        return written.encode("utf-8", "surrogateescape")
    try:
        if written == "@-":
            return sys.stdin.buffer.read()
        with open(written[1:], "rb") as file:
            return file.read()
    except OSError as error:
        raise click.UsageError(f"--data: {written[1:]}: {error.strerror}") from None


def _allow_files(count: int) -> None:
    """Let us have as many connections, as far as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
