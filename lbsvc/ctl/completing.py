"""Completion in the shell: the script for it, and the names of pools and backends, which the running service is asked for.

Promises: a service that cannot be asked, or takes longer than a second, completes nothing and says nothing. Called by
main.py and backends.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import click
from click.shell_completion import get_completion_class

from lbsvc.ctl.client import Failed
from lbsvc.ctl.session import json_option, the_session

#: For the service, while somebody holds the Tab key.
_PATIENCE: Final = 1.0


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(lbctl completion bash)"         in ~/.bashrc
    zsh:   eval "$(lbctl completion zsh)"          in ~/.zshrc
    fish:  lbctl completion fish > ~/.config/fish/completions/lbctl.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    # Not source(): that would run bash to ask for its version.
    completing = made(ctx.find_root().command, {}, "lbctl", "_LBCTL_COMPLETE")
    text = completing.source_template % completing.source_vars()
    the_session(ctx).show({"shell": shell, "script": text}, lambda: text + "\n")


def complete_pool(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of pools."""
    return _beginning(incomplete, (pool.get("name") for pool in _pools(ctx)))


def complete_backend(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of backends of the pool that was given."""
    backends = [pool.get("backends", ()) for pool in _pools(ctx) if pool.get("name") == ctx.params.get("pool")]
    return _beginning(incomplete, (each.get("name") for part in backends for each in part))


def _beginning(incomplete: str, names: Iterable[Any]) -> list[str]:
    return sorted({str(name) for name in names if str(name).startswith(incomplete)})


def _pools(ctx: click.Context) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = the_session(ctx).client(_PATIENCE).status()["pools"]
    except (Failed, click.ClickException):
        return []
    return found
