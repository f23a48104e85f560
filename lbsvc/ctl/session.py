"""One run of lbctl: what was asked for on the command line, and the way out for what is shown.

Promises: standard output has what was asked for and nothing else, as JSON under --json, and messages go to standard
error. Nothing that comes from outside can steer the terminal. The options of `shared` may stand before the command or
after it; the later one holds. Used by every command.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from lbsvc.ctl.client import PATIENCE, Client, check_token, parse_place

DEFAULT_ADMIN: Final = "http://127.0.0.1:9901"

#: A token file is read no further.
_LONGEST_TOKEN: Final = 8192

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])


@dataclass
class Session:
    """See the module docstring."""

    admin: str | None = None
    token_file: str | None = None
    is_json: bool = False

    def client(self, patience: float = PATIENCE) -> Client:
        """The admin interface that is meant. Raises UsageError."""
        written = self.admin or os.environ.get("LBCTL_ADMIN") or DEFAULT_ADMIN
        try:
            place = parse_place(written)
        except ValueError as error:
            which = "--admin" if self.admin else "LBCTL_ADMIN"
            said = str(error) if str(error).startswith("must") else "must be http://HOST:PORT or unix:PATH"
            raise click.UsageError(f"{which}: {said}") from None
        return Client(place, self._token(), patience)

    def _token(self) -> str:
        if self.token_file is None:
            written, which = os.environ.get("LBCTL_TOKEN", ""), "LBCTL_TOKEN"
            if not written.strip():
                return ""
        else:
            which = f"--token-file {self.token_file}"
            try:
                with open(self.token_file, encoding="utf-8") as file:
                    written = file.read(_LONGEST_TOKEN)
            except OSError as error:
                raise click.UsageError(f"{which}: cannot be read: {error.strerror}") from None
            except ValueError:
                written = ""
        try:
            return check_token(written)
        except ValueError as error:
            raise click.UsageError(f"{which}: {error}") from None

    def show(self, value: Any, text: Callable[[], str]) -> None:
        """The value under --json, else the text."""
        if self.is_json:
            click.echo(json.dumps(value, indent=2))
        else:
            click.echo(text(), nl=False, color=True)  # what is coloured was decided when it was made

    def line(self, value: Any, text: str) -> None:
        """The same for one of many, on a line."""
        click.echo(json.dumps(value) if self.is_json else clean(text))


def say(text: str) -> None:
    """A message."""
    click.echo(clean(text), err=True)


def clean(text: str) -> str:
    """Foreign text that stays on its line and cannot steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def the_session(ctx: click.Context) -> Session:
    """The session of this run."""
    return ctx.ensure_object(Session)


def _setting(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value:
            setattr(the_session(ctx), name, value)
        return value

    return keep


def json_option(command: AnyCommand) -> AnyCommand:
    """--json."""
    return click.option(
        "--json", "is_json", is_flag=True, expose_value=False, callback=_setting("is_json"), help="As JSON."
    )(command)


def shared(command: AnyCommand) -> AnyCommand:
    """--admin, --token-file and --json, for a command that asks the service."""
    command = json_option(command)
    command = click.option(
        "--token-file", metavar="FILE", expose_value=False, callback=_setting("token_file"),
        type=click.Path(), help="Where the token stands, if one is needed.  [env: LBCTL_TOKEN, the token itself]",
    )(command)  # fmt: skip
    return click.option(
        "--admin", metavar="URL", expose_value=False, callback=_setting("admin"),
        help=f"http://HOST:PORT or unix:PATH.  [env: LBCTL_ADMIN; default: {DEFAULT_ADMIN}]",
    )(command)  # fmt: skip


def is_terminal() -> bool:
    """Whether somebody looks at standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
