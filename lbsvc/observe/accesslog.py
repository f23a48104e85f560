"""The access log: one line for each request (http) or connection (tcp).

Promises: `log` costs a list append; formatting and writing happen in batches, at 512 records or 0.2 s after the
first. A destination that takes no more lines costs lines, which are counted, never a request, and not even their
formatting. Memory is bounded: a batch here, the writer's queue behind. With `sample` below 1 a random share of the
records is kept.

Called by the roads through a callable (`AccessLog.log`), with a tuple in the order of core/record.py; app.py builds
it and calls `flush` last, before the writers close. Formats: observe/logformats.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lbsvc.core.record import AccessRecord
from lbsvc.observe.logformats import FORMATTERS

#: Records in a batch: less than a millisecond of formatting, the longest that a log may keep a turn of the reactor.
BATCH: Final = 512

#: How long a line may wait for others, in seconds.
LINGER: Final = 0.2


class Writer(Protocol):
    """What an access log writes to: observe.logwriter.LogWriter."""

    def write(self, data: bytes) -> bool: ...

    def full(self) -> bool: ...

    def drop(self, lines: int) -> None: ...


class AccessLog:
    """Collects records, and turns them into lines a batch at a time."""

    def __init__(
        self,
        clock: IReactorTime,
        writer: Writer,
        log_format: str = "json",
        sample: float = 1.0,
        rng: random.Random | None = None,
    ) -> None:
        if sample < 1.0 and rng is None:
            raise ValueError("a sample needs a source of random numbers")
        self._clock = clock
        self._writer = writer
        self._format = FORMATTERS[log_format]
        self._sample = sample
        self._rng = rng
        self._records: list[AccessRecord] = []
        self._later: IDelayedCall | None = None
        #: What the roads call; one of two methods, so that logging everything does not ask about samples.
        self.log: Callable[[AccessRecord], None] = self._log if sample >= 1.0 else self._log_sampled

    def _log(self, record: AccessRecord) -> None:
        records = self._records
        records.append(record)
        if len(records) >= BATCH:
            self.flush()
        elif self._later is None:
            self._later = self._clock.callLater(LINGER, self._linger_over)

    def _log_sampled(self, record: AccessRecord) -> None:
        assert self._rng is not None
        if self._rng.random() < self._sample:
            self._log(record)

    def _linger_over(self) -> None:
        self._later = None
        self.flush()

    def flush(self) -> None:
        """Format and hand over what has been collected. The timer is left to run: it finds nothing, or the next lines."""
        records = self._records
        if not records:
            return
        self._records = []
        if self._writer.full():
            self._writer.drop(len(records))
            return
        self._writer.write(self._format(records))

    def close(self) -> None:
        """Flush, and leave no timer behind."""
        self.flush()
        if self._later is not None:
            self._later.cancel()
            self._later = None
