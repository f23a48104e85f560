"""`lbctl top`: the service live on a terminal, a second at a time; off one, the same line by line.

Promises: memory does not grow with time. Asking goes on in threads, so that keys are obeyed at once whatever the
service does; of statuses only the newest is kept, and one change is asked for at a time. A service that goes away is
waited for, and said to be away; one that is not there at the start is an error. The terminal is left as it was found.
Called by main.py.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from typing import Any, Final

import click

from lbsvc.ctl.client import EX_INTERRUPTED, Client, Failed, Unreachable
from lbsvc.ctl.keyboard import Keys, open_keyboard
from lbsvc.ctl.rates import Rates, as_json
from lbsvc.ctl.session import Session, is_terminal, shared, the_session
from lbsvc.ctl.tables import console, drawn
from lbsvc.ctl.topview import Top, Wish

#: How long a service that went away is left alone.
_PAUSE: Final = 1.0


@click.command()
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many seconds.")
@shared
@click.pass_context
def top(ctx: click.Context, count: int | None) -> None:
    """Watch rates, latencies and states live.

    \b
    Keys: up and down choose a backend, d drains it, r makes it ready again,
    s sorts by another column, S the other way round, q quits.

    Off a terminal, and with --json, it writes a table or an object each second.
    """
    session = the_session(ctx)
    client = session.client()
    if session.is_json or not is_terminal() or not sys.stdin.isatty():
        _write(session, client, count)
    else:
        first = client.status()  # what is not there at the start is an error
        ctx.exit(_Live(client, count, first).run())


def _write(session: Session, client: Client, count: int | None) -> None:
    """One drawing after the other."""
    rates, shown = Rates(), Top(client.place.written)
    for kind, status in client.events("status"):
        if kind != "status" or not isinstance(status, dict):
            continue
        if session.is_json:
            rates.add(status)
            session.line(as_json(status, rates.pools), "")
        else:
            shown.add(status)
            click.echo(drawn(shown.drawing(), ""), nl=False, color=True)
        if count is not None:
            count -= 1
            if not count:
                return
    raise Unreachable("lbctl: the service has ended the stream: it stops, or has moved its admin interface")


class _Live:
    """The live view. The main thread draws; what others bring waits in one place each, and a byte wakes."""

    def __init__(self, client: Client, count: int | None, first: dict[str, Any]) -> None:
        self._client = client
        self._left = count
        self._top = Top(client.place.written)
        self._top.add(first)  # so that there is something to be seen until the stream says more
        self._lock = threading.Lock()
        self._newest: dict[str, Any] | None = None
        self._said: str | None = None
        self._is_asking = False
        self._woken, self._wake = os.pipe()
        self._has_ended = threading.Event()

    def run(self) -> int:
        """Until somebody has seen enough: the exit status."""
        from rich.live import Live

        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        threading.Thread(target=self._listen, daemon=True).start()
        out = console()
        keyboard = sys.stdin.fileno()
        try:
            with (
                open_keyboard(keyboard, self._wake),
                Live(
                    console=out, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
                ) as live,
            ):
                keys = Keys()
                while not self._top.has_ended:
                    live.update(self._top.drawing(out.size.height, out.size.width), refresh=True)
                    self._take(keys, keyboard)
        except KeyboardInterrupt:
            return EX_INTERRUPTED
        finally:
            self._has_ended.set()
        return 0

    def _take(self, keys: Keys, keyboard: int) -> None:
        """Wait for what comes next, and take it."""
        readable, _, _ = select.select([keyboard, self._woken], [], [])
        if self._woken in readable:
            os.read(self._woken, 4096)
            with self._lock:
                status, self._newest = self._newest, None
                said, self._said = self._said, None
            if said is not None:
                self._top.message = said
            if status is not None:
                self._show(status)
        if keyboard in readable:
            piece = os.read(keyboard, 1024)
            if not piece:
                self._top.has_ended = True  # the terminal is gone
            for key in keys.feed(piece):
                wish = self._top.press(key)
                if wish is not None:
                    self._ask(wish)

    def _show(self, status: dict[str, Any]) -> None:
        self._top.add(status)
        if self._left is not None:
            self._left -= 1
            self._top.has_ended = self._top.has_ended or self._left <= 0

    # -- in other threads

    def _tell(self, said: str | None, status: dict[str, Any] | None = None) -> None:
        with self._lock:
            if said is not None:
                self._said = said
            if status is not None:
                self._newest = status
        try:
            os.write(self._wake, b"w")
        except BlockingIOError:
            pass  # it will wake anyway

    def _listen(self) -> None:
        is_away = False
        while not self._has_ended.is_set():
            try:
                for kind, status in self._client.events("status"):
                    if kind == "status" and isinstance(status, dict):
                        self._tell("the service is back" if is_away else None, status)
                        is_away = False
                said = "the service has ended the stream"
            except Failed as failed:
                said = failed.lines[0].removeprefix("lbctl: ")
            is_away = True
            self._tell(f"{said}; trying again")
            self._has_ended.wait(_PAUSE)

    def _ask(self, wish: Wish) -> None:
        if self._is_asking:
            self._top.message = "still asking for the last change"
            return
        self._is_asking = True
        self._top.message = f"{wish.key[0]}/{wish.key[1]}: asking for {wish.state}"
        threading.Thread(target=self._change, args=(wish,), daemon=True).start()

    def _change(self, wish: Wish) -> None:
        pool, name, _ = wish.key
        try:
            self._client.change(pool, name, state=wish.state)
            said = f"{pool}/{name}: {wish.state}"
        except Failed as failed:
            said = failed.lines[0].removeprefix("lbctl: ")
        self._is_asking = False
        self._tell(said)
