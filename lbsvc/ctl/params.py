"""Options that are written as in a configuration: durations, shares, rates.

Promises: what the configuration takes is taken here, and what it refuses is refused, as wrong usage. Values are seconds,
0 to 1, and events a second. Called by request.py and demo.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click
from typing_extensions import override

from lbsvc.config.values import parse_duration, parse_rate, parse_share


class Written(click.ParamType[float]):
    """A number that is written as in a configuration."""

    def __init__(self, name: str, parse: Callable[[str], float | None], example: str, least: float = 0.0) -> None:
        self.name = name
        self._parse = parse
        self._example = example
        self._least = least

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        found = self._parse(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not {self._example}", param, ctx)
        if found < self._least:
            self.fail(f"{value!r} is too little: {self._least:g} is the least", param, ctx)
        return found


def _rate(text: str) -> float | None:
    """100, or 100/s, 6000/m."""
    try:
        return parse_rate(text if "/" in text else f"{text}/s")
    except ValueError:
        return None


#: From 1 ms.
DURATION: Final = Written("duration", parse_duration, "a duration such as 250ms, 5s or 1m30s", 0.001)
#: From nothing.
PAUSE: Final = Written("duration", parse_duration, "a duration such as 250ms, 5s or 1m30s")
SHARE: Final = Written("share", parse_share, "a share such as 10%")
RATE: Final = Written("rate", _rate, "a rate such as 100, 100/s or 6000/m", 0.001)
