"""The commands that ask the service as a whole, and those that read a configuration.

Promises: as contract.md has them. `check` and `schema` ask nobody. Called by main.py; what costs time to import is
imported where it is used.
"""

from __future__ import annotations

import os
from typing import Any

import click

from lbsvc.ctl.client import EX_CONFIG, Unreachable
from lbsvc.ctl.session import clean, json_option, say, shared, the_session


@click.command()
@shared
@click.pass_context
def status(ctx: click.Context) -> None:
    """Show listeners, pools and backends at this moment."""
    from lbsvc.ctl.tables import for_status

    found = the_session(ctx).client().status()
    the_session(ctx).show(found, lambda: for_status(found))


@click.command()
@click.option("--fail", is_flag=True, help="Exit with 1 unless every backend is up.")
@shared
@click.pass_context
def health(ctx: click.Context, fail: bool) -> None:
    """Show which backends may get traffic by their checks."""
    from lbsvc.ctl.tables import for_health

    found = the_session(ctx).client().health()
    the_session(ctx).show(found, lambda: for_health(found))
    if fail and not all(is_up for addresses in found.values() for is_up in addresses.values()):
        ctx.exit(1)


@click.command()
@shared
@click.pass_context
def config(ctx: click.Context) -> None:
    """Show the configuration in force, as JSON, secrets masked."""
    session = the_session(ctx)
    session.is_json = True  # it has no other form
    session.show(session.client().config(), str)


@click.command()
@shared
@click.pass_context
def reload(ctx: click.Context) -> None:
    """Have the service read its configuration file anew.

    A wrong file changes nothing: its mistakes are listed, and the exit status is 1.
    """
    found = the_session(ctx).client().reload()
    the_session(ctx).show(found, lambda: changes_of(found))


def changes_of(found: dict[str, Any]) -> str:
    """What an answer to a change says, each change on a line."""
    lines = [clean(str(change)) for change in found["changes"]] or ["nothing has changed"]
    return "".join(f"{line}\n" for line in (f"generation {found['generation']}", *lines))


@click.command()
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many.")
@click.option("--status", "is_all", is_flag=True, help="The status too, each second (whole, with --json).")
@shared
@click.pass_context
def events(ctx: click.Context, count: int | None, is_all: bool) -> None:
    """Show changes as they happen, a line each.

    It goes on until it is interrupted. With --json, each line is one JSON object, as in the event log.
    """
    session = the_session(ctx)
    for kind, event in session.client().events(None if is_all else "change"):
        if not isinstance(event, dict):
            continue
        session.line(event, status_line(event) if kind == "status" else event_line(event))
        if count is not None:
            count -= 1
            if not count:
                return
    raise Unreachable("lbctl: the service has ended the stream: it stops, or has moved its admin interface")


def event_line(event: dict[str, Any]) -> str:
    """When, how grave, what, in words."""
    time, level = str(event.get("ts", "")), str(event.get("level", ""))
    return f"{time} {level:5} {event.get('event', '')}: {event.get('message', '')}"


def status_line(found: dict[str, Any]) -> str:
    """The status, very short."""
    backends = [backend for pool in found.get("pools", ()) for backend in pool.get("backends", ())]
    up = sum(backend.get("health") == "up" for backend in backends)
    active = sum(backend.get("active", 0) for backend in backends)
    ready = "ready" if found.get("ready") else "not ready"
    return (
        f"status: {ready}, generation {found.get('generation')}, {up} of {len(backends)} backends up, {active} active"
    )


@click.command()
@click.argument("file", type=click.Path())
@json_option
@click.pass_context
def check(ctx: click.Context, file: str) -> None:
    """Say what is wrong with a configuration file.

    Every mistake at once, each on a line; the exit status is 78 then. No service is asked; variables are
    those of this environment.
    """
    from lbsvc.config.loader import load_file
    from lbsvc.errors import ConfigErrors

    errors: list[str] = []
    notes: list[str] = []
    try:
        notes = load_file(file, os.environ).notes
    except ConfigErrors as wrong:
        errors = [str(mistake) for mistake in wrong.mistakes]
    for line in (*errors, *notes):
        say(line)
    session = the_session(ctx)
    if session.is_json or not errors:
        session.show({"ok": not errors, "errors": errors, "notes": notes}, lambda: f"{clean(file)}: ok\n")
    if errors:
        ctx.exit(EX_CONFIG)


@click.command()
@json_option
def schema() -> None:
    """Print the JSON Schema of configuration files, for editors."""
    from lbsvc.config.jsonschema import printed

    click.echo(printed().encode("utf-8"), nl=False)
