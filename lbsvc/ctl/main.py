"""The command line of lbctl: its commands, what all of them share, and how each of them ends.

Promises: no traceback for what can go wrong outside of lbctl; messages on standard error, exit statuses as client.py
has them; a misspelt command or option says what was probably meant. A command's module is imported when it is asked
for.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from typing import Final

import click
from typing_extensions import override

import lbsvc
from lbsvc.ctl.client import EX_FAILED, EX_INTERRUPTED, EX_USAGE, Failed
from lbsvc.ctl.hinting import HintingGroup
from lbsvc.ctl.session import Session, say, shared, the_session

#: Each command: where it is, and what it is called there.
COMMANDS: Final = {
    "status": ("commands", "status"),
    "health": ("commands", "health"),
    "backend": ("backends", "backend"),
    "reload": ("commands", "reload"),
    "events": ("commands", "events"),
    "top": ("top", "top"),
    "config": ("commands", "config"),
    "workers": ("processes", "workers"),
    "upgrade": ("processes", "upgrade"),
    "check": ("commands", "check"),
    "convert": ("convert", "command"),
    "schema": ("commands", "schema"),
    "request": ("request", "command"),
    "demo-backend": ("demo", "command"),
    "completion": ("completing", "completion"),
}


class Commands(HintingGroup):
    """The commands by their names, imported when they are needed."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        found = getattr(importlib.import_module(f"lbsvc.ctl.{module}"), name)
        assert isinstance(found, click.Command)
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(lbsvc.__version__, prog_name="lbctl", message="%(prog)s %(version)s")
@shared
@click.pass_context
def lbctl(ctx: click.Context) -> None:
    """Operate a running lbsvc over its admin interface.

    \b
    Examples:
      lbctl status
      lbctl backend drain web web-1 --wait --timeout 5m
      lbctl --admin unix:/run/lbsvc/admin.sock reload
      lbctl check /etc/lbsvc/lb.yaml

    Exit status: 0 done, 1 failed or refused, 64 wrong usage, 69 cannot reach the service,
    78 wrong configuration.
    """
    if the_session(ctx).is_json:  # commands that ask no service have a --json of their own
        ctx.default_map = {name: {"is_json": True} for name in ("request", "demo-backend")}


def run(arguments: Sequence[str] | None = None) -> int:
    """One run of lbctl: its exit status."""
    session = Session()
    try:
        ended = lbctl.main(arguments, prog_name="lbctl", standalone_mode=False, obj=session)
    except Failed as failed:
        if session.is_json:
            click.echo(json.dumps(failed.problem(), indent=2))
        for line in failed.lines:
            say(line)
        return failed.code
    except click.UsageError as error:
        error.show()
        return EX_USAGE
    except click.ClickException as error:
        error.show()
        return EX_FAILED
    except click.Abort:
        return EX_INTERRUPTED
    except OSError as error:  # of standard output, for one: a full disk
        say(f"lbctl: {error.strerror or error}")
        return EX_FAILED
    return ended if isinstance(ended, int) else 0


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal that knows no µ
    sys.exit(run())


if __name__ == "__main__":
    main()
