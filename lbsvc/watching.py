"""The configuration file is watched (`watch: true`): who writes it need not send a signal.

Promises: `changed` is called once SETTLED seconds have passed since the file last changed, and only if its content is
another one than was last known; writing it in pieces, `touch`, chmod and editors that rename change nothing more than that.
What counts is the file that the path leads to: symlinks, of the file or of any folder above it, may be swapped (as
Kubernetes does with ConfigMaps). A file that is gone or cannot be read is told once, too, like any other content. A path
that is no regular file (a pipe) is never read. Between two looks nothing is done, and nothing is held open.

Called by app.py: `note` (in the reactor's thread) before each reading of the file, whoever asks for it, so that a change is
told once; `start` and `stop` as `watch` in force says. By polling: inotify sees neither a swapped folder above nor a file on
NFS. Seconds of the injected clock.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python import log

from lbsvc.config.document import MAX_BYTES

#: How often we look, in seconds.
LOOK: Final = 0.25
#: How long a file must have stayed as it is, in seconds (contract.md).
SETTLED: Final = 1.0

#: What changes when a file is written or another one takes its place; () where there is none.
Stamp: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """A file as it was once: its stamp, and its content's digest (None: it could not be read)."""

    stamp: Stamp
    digest: bytes | None


def known(path: str) -> Known:
    """The file as it is now. To be asked before the file is read: what changes afterwards is a change."""
    stamp = _stamp_of(path)
    return Known(stamp, _digest_of(path))


def _stamp_of(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    if not stat.S_ISREG(found.st_mode):
        return (found.st_dev, found.st_ino)
    # The change time too: what has the size and the modification time of its predecessor (cp -p, rsync) was changed later.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _digest_of(path: str) -> bytes | None:
    try:
        # Not blocking: another one may have come since we looked, and to open a pipe would wait for its writer.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        with open(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                return None
            return hashlib.sha256(file.read(MAX_BYTES + 1)).digest()
    except OSError:
        return None


class Watch:
    """One watched file. `before` is what is known of it from before it was first read."""

    def __init__(
        self, clock: IReactorTime, path: str, changed: Callable[[], object], before: Known | None = None
    ) -> None:
        self._clock = clock
        self._path = path
        self._changed = changed
        found = before or known(path)
        self._digest = found.digest
        self._stamp = found.stamp
        self._changed_at: float | None = None  # when the file was seen to change; None: it is known as it is
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    @property
    def is_on(self) -> bool:
        return self._loop.running

    def start(self) -> None:
        """Look from now on. What has changed since it was last known is a change."""
        if not self._loop.running:
            self._loop.start(LOOK)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def note(self) -> None:
        """The file is about to be read: as it is now it is known."""
        found = known(self._path)
        self._stamp, self._digest, self._changed_at = found.stamp, found.digest, None

    def _look(self) -> None:
        now = self._clock.seconds()
        stamp = _stamp_of(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            self._changed_at = now
        elif self._changed_at is not None and now - self._changed_at >= SETTLED:
            self._settle()

    def _settle(self) -> None:
        self._changed_at = None
        digest = _digest_of(self._path)
        if digest == self._digest:
            return
        self._digest = digest
        try:
            self._changed()
        except Exception:
            log.err(None, "a change of the configuration file was noticed, and what follows from it failed")
