"""`lbctl workers` and `lbctl upgrade`: the processes of the service, shown and replaced.

Promises: what replaces processes is waited for, and says what has come of it; `upgrade` is over when another process answers
at the admin interface. Called by main.py. Times are seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import click

from lbsvc.ctl.client import Client, Failed
from lbsvc.ctl.session import shared, the_session

#: How often is looked whether the new process answers, and for how long.
LOOK: Final = 0.1
TAKES_OVER: Final = 30.0


@click.command()
@click.argument("action", required=False, type=click.Choice(["restart"]))
@shared
@click.pass_context
def workers(ctx: click.Context, action: str | None) -> None:
    """Show the worker processes, or replace them.

    With restart they are replaced one by one, each when its successor serves: no request fails. It returns when all
    are, and exits with 1 where one could not be replaced. The old ones finish what they have: WebSockets and other long
    connections as long as shutdown.removed lets them (by default without limit), and until then they are shown as leaving.
    """
    session = the_session(ctx)
    client = session.client()
    if action is None:
        from lbsvc.ctl.tables import for_workers

        found = client.workers()
        session.show(found, lambda: for_workers(found["workers"]))
        return
    done = client.restart_workers()
    count = done["restarted"]
    session.show(done, lambda: f"{count} worker{'' if count == 1 else 's'} restarted\n")


@click.command()
@shared
@click.pass_context
def upgrade(ctx: click.Context) -> None:
    """Replace the service by its new program, without a gap.

    The program is started anew, as it is on the disk now, with its configuration file as that is now, and gets the
    listening sockets. It returns when the new process is ready and answers here; the old one finishes what it has, within
    shutdown.drain_timeout. If the new one fails to start, or is not ready within a minute and what its health checks may
    take, nothing changes, and the exit status is 1.
    """
    session = the_session(ctx)
    client = session.client()
    before = client.workers().get("pid")
    found = client.upgrade()
    wait_for_another(client, before, found["pid"])
    session.show(found, lambda: f"process {found['pid']} has taken over from {before}\n")


def wait_for_another(
    client: Client,
    before: Any,
    pid: int,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Until another process than `before` answers."""
    begin = clock()
    while True:
        try:
            answering = client.workers().get("pid")
            said = f"process {answering} still answers here"
            if answering != before:
                return
        except Failed as failed:
            said = failed.lines[0].removeprefix("lbctl: ")
        if clock() - begin >= TAKES_OVER:
            raise Failed(f"lbctl: process {pid} is ready and serves, but after {TAKES_OVER:g} s {said}")
        pause(LOOK)
