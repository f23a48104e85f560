"""`lbctl backend`: backends come, go, and change while the service runs; and how it is waited for that one is empty.

Promises: a change is one call, and refused as a whole or done. Waiting goes by name and address: a backend of the same
name that came meanwhile is not taken for the one that goes; one that somebody puts back to work is a failure, not a
wait without end. Called by main.py. Times are seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from lbsvc.ctl.client import Client, Failed, Refused
from lbsvc.ctl.commands import changes_of
from lbsvc.ctl.completing import complete_backend, complete_pool
from lbsvc.ctl.hinting import HintingGroup
from lbsvc.ctl.params import DURATION, PAUSE
from lbsvc.ctl.session import AnyCommand, say, shared, the_session

#: How often is looked whether a backend is empty.
LOOK: Final = 0.25
#: How often is said that it is not.
TELL: Final = 10.0


@click.group(cls=HintingGroup)
@shared
def backend() -> None:
    """Add, remove, drain and change backends."""


def _names(command: AnyCommand) -> AnyCommand:
    command = click.argument("name", shell_complete=complete_backend)(command)
    return click.argument("pool", shell_complete=complete_pool)(command)


def _waiting(words: str) -> Callable[[AnyCommand], AnyCommand]:
    def add(command: AnyCommand) -> AnyCommand:
        command = click.option("--timeout", type=DURATION, help="Wait no longer (30s, 5m), and exit with 1.")(command)
        return click.option("--wait", is_flag=True, help=f"Wait until it is {words}.")(command)

    return add


@backend.command()
@click.argument("pool", shell_complete=complete_pool)
@click.argument("address")
@click.option("--weight", type=click.IntRange(0, 65535), help="[default: 1]")
@click.option("--name", help="[default: the address]")
@click.option("--backup", is_flag=True, help="Only where no other is available.")
@shared
@click.pass_context
def add(ctx: click.Context, pool: str, address: str, weight: int | None, name: str | None, backup: bool) -> None:
    """Add a backend to a pool.

    It takes traffic as soon as its first check has passed.
    """
    fields: dict[str, Any] = {"address": address}
    if weight is not None:
        fields["weight"] = weight
    if name is not None:
        fields["name"] = name
    if backup:
        fields["backup"] = True
    _show(ctx, the_session(ctx).client().add(pool, fields))


@backend.command()
@_names
@click.option("--drain", type=PAUSE, help="Cut what is left after this time.  [default: no limit]")
@_waiting("gone")
@shared
@click.pass_context
def remove(ctx: click.Context, pool: str, name: str, drain: float | None, wait: bool, timeout: float | None) -> None:
    """Remove a backend: it takes nothing new, and is gone when its last request is."""
    _check_waiting(wait, timeout)
    client = the_session(ctx).client()
    addresses = frozenset(str(each.get("address")) for each in _found(client, pool, name)) if wait else frozenset()
    found = client.remove(pool, name, drain)
    if wait:
        _wait(pool, name, timeout, lambda: _left(client, pool, name, addresses))
    _show(ctx, found)


@backend.command("drain")
@_names
@_waiting("empty")
@shared
@click.pass_context
def drain_(ctx: click.Context, pool: str, name: str, wait: bool, timeout: float | None) -> None:
    """Let a backend finish what it has: it keeps its sticky clients, and takes nothing new."""
    _set_state(ctx, pool, name, "drain", wait, timeout)


@backend.command()
@_names
@_waiting("empty")
@shared
@click.pass_context
def maint(ctx: click.Context, pool: str, name: str, wait: bool, timeout: float | None) -> None:
    """Take a backend out for maintenance: it takes nothing, and is not checked."""
    _set_state(ctx, pool, name, "maint", wait, timeout)


@backend.command()
@_names
@shared
@click.pass_context
def ready(ctx: click.Context, pool: str, name: str) -> None:
    """Put a backend back to work."""
    _show(ctx, the_session(ctx).client().change(pool, name, state="ready"))


@backend.command()
@_names
@click.argument("weight", type=click.IntRange(0, 65535), metavar="N")
@shared
@click.pass_context
def weight(ctx: click.Context, pool: str, name: str, weight: int) -> None:
    """Set a backend's weight."""
    _show(ctx, the_session(ctx).client().change(pool, name, weight=weight))


def _show(ctx: click.Context, found: Mapping[str, Any]) -> None:
    the_session(ctx).show(found, lambda: changes_of(dict(found)))


def _check_waiting(wait: bool, timeout: float | None) -> None:
    if timeout is not None and not wait:
        raise click.UsageError("--timeout means nothing without --wait")


def _set_state(ctx: click.Context, pool: str, name: str, state: str, wait: bool, timeout: float | None) -> None:
    _check_waiting(wait, timeout)
    client = the_session(ctx).client()
    found = client.change(pool, name, state=state)
    if wait:
        _wait(pool, name, timeout, lambda: _under_way(client, pool, name, state))
    _show(ctx, found)


# -- waiting


def _found(client: Client, pool: str, name: str) -> list[Mapping[str, Any]]:
    """The backends that a name means: one, or the members of a host name."""
    backends = client.pool(pool)["backends"]
    return [each for each in backends if each.get("name") == name] or [
        each for each in backends if str(each.get("name")).rpartition("@")[0] == name
    ]


def _under_way(client: Client, pool: str, name: str, state: str) -> int | None:
    """What a backend has in hand, None when that is nothing."""
    found = _found(client, pool, name)
    if not found:
        raise Failed(f"lbctl: {pool}/{name} was removed meanwhile")
    now = {each.get("state") for each in found} - {state}
    if now:
        raise Failed(f"lbctl: {pool}/{name} was set to {', '.join(sorted(map(str, now)))} meanwhile")
    return sum(int(each.get("active", 0)) for each in found) or None


def _left(client: Client, pool: str, name: str, addresses: frozenset[str]) -> int | None:
    """The same for one that goes: None when it is gone."""
    try:
        found = [each for each in _found(client, pool, name) if each.get("address") in addresses]
    except Refused as refused:
        if refused.status == 404:  # the pool went too
            return None
        raise
    if not found:
        return None
    if any(each.get("state") != "drain" for each in found):
        raise Failed(f"lbctl: {pool}/{name} was added again meanwhile")
    return sum(int(each.get("active", 0)) for each in found)


def _wait(
    pool: str,
    name: str,
    timeout: float | None,
    look: Callable[[], int | None],
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Until `look` finds None."""
    begin = told = clock()
    while (active := look()) is not None:
        now = clock()
        if timeout is not None and now - begin >= timeout:
            raise Failed(f"lbctl: {pool}/{name}: {active} still under way after {timeout:g} s; it goes on draining")
        if now - told >= TELL:
            told = now
            say(f"lbctl: {pool}/{name}: {active} under way")
        pause(LOOK if timeout is None else min(LOOK, max(begin + timeout - now, 0.001)))
