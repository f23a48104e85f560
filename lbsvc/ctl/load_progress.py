"""The progress bar of a load run, on standard error.

Promises: it draws when it is told to and at no other time, and takes itself away at the end. Called by request.py, only on a
terminal: without one rich need not be imported.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from lbsvc.http.load import Load


class Progress:
    """Shows how far a load has come: in requests, or in time where there is no number of them."""

    def __init__(self, load: Load, console: Console | None = None) -> None:
        self._load = load
        plan = load.plan
        self._in_time = plan.requests is None
        total = plan.duration if self._in_time else plan.requests
        self._bar = Bar(
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[done]} requests, {task.fields[speed]:.0f}/s, {task.fields[failed]} failed"),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, done=0, speed=0.0, failed=0)

    def __enter__(self) -> Any:
        self._bar.start()
        return self.draw

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def draw(self) -> None:
        """Show how it stands."""
        load = self._load
        done, elapsed = load.tally.done, load.elapsed
        speed = done / elapsed if elapsed > 0 else 0.0
        completed = elapsed if self._in_time else done
        self._bar.update(
            self._task, completed=completed, done=done, speed=speed, failed=load.tally.failed, refresh=True
        )
