"""A group of commands that says which one was probably meant.

Promises: a word that is no command is wrong usage, with a hint where one is near. Called by main.py and backends.py.
"""

from __future__ import annotations

import click
from typing_extensions import override

from lbsvc.config.hints import meant, quoted


class HintingGroup(click.Group):
    """See the module docstring."""

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known and not ctx.resilient_parsing:
            hint = meant(args[0], known)
            raise click.UsageError(f"there is no command {quoted(args[0])}" + (f": {hint}" if hint else ""), ctx)
        return super().resolve_command(ctx, args)
