"""`lbctl backend`: backends come, go, and change while the service runs; and how it is waited for that one is empty, or up.

Promises: a change is one call, and refused as a whole or done. Who has waited is told for what. Waiting goes by name and
address: a backend of the same name that came meanwhile is not taken for the one that goes; one that somebody sets to another
state is a failure, not a wait without end. Called by main.py. Times are seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import click
from typing_extensions import override

from lbsvc.ctl.client import Client, Failed, Refused
from lbsvc.ctl.commands import changes_of
from lbsvc.ctl.completing import complete_backend, complete_pool
from lbsvc.ctl.hinting import HintingGroup
from lbsvc.ctl.params import DURATION, PAUSE
from lbsvc.ctl.session import AnyCommand, clean, say, shared, the_session

#: How often is looked whether a backend is empty.
LOOK: Final = 0.25
#: How often is said that it is not.
TELL: Final = 10.0
_GOES_ON: Final = "it goes on draining"


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
        _wait(pool, name, timeout, lambda: _in_hand(_left(client, pool, name, addresses)), _GOES_ON)
    _show(ctx, found, f"{pool}/{name} is gone" if wait else "")


@backend.command("drain")
@_names
@_waiting("empty")
@shared
@click.pass_context
def drain_(ctx: click.Context, pool: str, name: str, wait: bool, timeout: float | None) -> None:
    """Let a backend finish what it has: it keeps its sticky clients, and takes nothing new.

    With sticky clients that come again and again it is never empty: --timeout ends the waiting, and maint
    sends them to others.
    """
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
@_waiting("up")
@shared
@click.pass_context
def ready(ctx: click.Context, pool: str, name: str, wait: bool, timeout: float | None) -> None:
    """Put a backend back to work.

    It is checked at once, and takes traffic when it has passed (sooner only where no other is available).
    """
    _check_waiting(wait, timeout)
    client = the_session(ctx).client()
    found = client.change(pool, name, state="ready")
    if wait:
        _wait(pool, name, timeout, lambda: _not_up(client, pool, name), "it stays ready")
    _show(ctx, found, f"{pool}/{name} is up" if wait else "")


class _Weighing(click.Command):
    """A command for which -1 is a wrong number, and not an option that there is not."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for arg in args[: args.index("--")] if "--" in args else args:
            if re.fullmatch(r"-[0-9.]+", arg):
                raise click.UsageError(f"weight: must be 0 or more (got {arg})", ctx)
        return super().parse_args(ctx, args)


@backend.command(cls=_Weighing)
@_names
@click.argument("weight", type=click.IntRange(0, 65535), metavar="N")
@shared
@click.pass_context
def weight(ctx: click.Context, pool: str, name: str, weight: int) -> None:
    """Set a backend's weight."""
    _show(ctx, the_session(ctx).client().change(pool, name, weight=weight))


def _show(ctx: click.Context, found: Mapping[str, Any], outcome: str = "") -> None:
    """What has changed, and what has come of it."""
    said = f"{clean(outcome)}\n" if outcome else ""
    the_session(ctx).show(found, lambda: changes_of(dict(found)) + said)


def _check_waiting(wait: bool, timeout: float | None) -> None:
    if timeout is not None and not wait:
        raise click.UsageError("--timeout means nothing without --wait")


def _set_state(ctx: click.Context, pool: str, name: str, state: str, wait: bool, timeout: float | None) -> None:
    _check_waiting(wait, timeout)
    client = the_session(ctx).client()
    found = client.change(pool, name, state=state)
    if wait:
        _wait(pool, name, timeout, lambda: _in_hand(_under_way(client, pool, name, state)), _GOES_ON)
    _show(ctx, found, f"{pool}/{name} is empty" if wait else "")


# -- waiting


def _found(client: Client, pool: str, name: str) -> list[Mapping[str, Any]]:
    """The backends that a name means: one, or the members of a host name."""
    backends = client.pool(pool)["backends"]
    return [each for each in backends if each.get("name") == name] or [
        each for each in backends if str(each.get("name")).rpartition("@")[0] == name
    ]


def _set_so(client: Client, pool: str, name: str, state: str) -> list[Mapping[str, Any]]:
    """The backends that a name means, which are still what they were set to."""
    found = _found(client, pool, name)
    if not found:
        raise Failed(f"lbctl: {pool}/{name} was removed meanwhile")
    now = {each.get("state") for each in found} - {state}
    if now:
        raise Failed(f"lbctl: {pool}/{name} was set to {', '.join(sorted(map(str, now)))} meanwhile")
    return found


def _under_way(client: Client, pool: str, name: str, state: str) -> int | None:
    """What a backend has in hand, None when that is nothing."""
    return sum(int(each.get("active", 0)) for each in _set_so(client, pool, name, state)) or None


def _not_up(client: Client, pool: str, name: str) -> str | None:
    """What those that are not up are instead, and why; None when all are up."""
    for each in _set_so(client, pool, name, "ready"):
        if each.get("health") != "up":
            checked = each.get("last_check")
            why = f" ({checked.get('detail')})" if isinstance(checked, dict) and not checked.get("ok") else ""
            return f"{each.get('health')}{why}"
    return None


def _in_hand(active: int | None) -> str | None:
    return None if active is None else f"{active} still under way"


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
    look: Callable[[], str | None],
    otherwise: str,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Until `look` finds None. `otherwise`: what the service does when nobody waits any more."""
    begin = told = clock()
    while (found := look()) is not None:
        now = clock()
        if timeout is not None and now - begin >= timeout:
            raise Failed(f"lbctl: {pool}/{name}: {found} after {timeout:g} s; {otherwise}")
        if now - told >= TELL:
            told = now
            say(f"lbctl: {pool}/{name}: {found}")
        pause(LOOK if timeout is None else min(LOOK, max(begin + timeout - now, 0.001)))
