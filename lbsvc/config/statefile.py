"""The file that keeps run-time changes over a restart (`state_file`).

Promises: a reader finds the former changes or the new ones, whole, also after a crash or a power cut (written beside,
synced, renamed; then the folder is synced). Nobody else can read it. A damaged file, or one of a version that this program
does not know, is set aside as PATH.damaged (-1, -2, …), so that nothing is lost with it, and never stops the start. What
does stop it is a path that cannot be written to (`prepare`): each change would be refused later, and nobody knew before.
A symlink is followed: what it leads to is replaced. Called by reloading.py.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import stat
import tempfile
from contextlib import suppress
from typing import Any, Final

from lbsvc.config.overrides import Overrides
from lbsvc.config.overrides_json import from_json, to_json

VERSION: Final = 1
#: No file that we wrote is larger, in bytes.
LARGEST: Final = 64 << 20


class StateFile:
    """One path; each call opens what is there then."""

    def __init__(self, path: str) -> None:
        self._path = path

    def prepare(self) -> None:
        """Find out whether it can be written; raises OSError. The last folder of its path is made where it is missing.

        What a process that was killed has left beside it is removed.
        """
        path = os.path.realpath(self._path)
        folder = os.path.dirname(path)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {os.path.dirname(folder)}") from None
        except OSError:
            if not os.path.isdir(folder):  # else, on a disk that is read-only, what is refused is told below
                raise
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(errno.EINVAL, "it is no regular file")
        descriptor, probe = _make_beside(path)
        try:
            _remove_left(path, os.fstat(descriptor).st_mtime_ns)
        finally:
            os.close(descriptor)
            os.unlink(probe)

    def holds_others(self, overrides: Overrides) -> bool:
        """Are there changes in it that are not these? Raises OSError, or ValueError if it is damaged."""
        try:
            found = _read(os.path.realpath(self._path))
        except FileNotFoundError:
            return False
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return found not in (Overrides(), overrides)

    def load(self) -> tuple[Overrides, str | None]:
        """The changes that were saved, and what there is to complain about (None: nothing). A missing file has none."""
        path = os.path.realpath(self._path)
        try:
            return _read(path), None
        except FileNotFoundError:
            return Overrides(), None
        except OSError as error:
            why = f"{self._path}: cannot be read ({error.strerror or error})"
            is_file = error.errno not in (errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.EINVAL, errno.ELOOP)
        except (ValueError, RecursionError) as error:
            why = f"{self._path}: is damaged ({str(error) or type(error).__name__})"
            is_file = True
        without = "run-time changes of the last run are not in force"
        if not is_file:
            return Overrides(), f"{why}; {without}"
        try:
            aside = _set_aside(path)
        except OSError as error:
            return Overrides(), f"{why}; {without}, and it cannot be set aside ({error.strerror or error})"
        return Overrides(), f"{why}; {without}, it is kept as {aside}"

    def save(self, overrides: Overrides) -> str | None:
        """Write the changes; raises OSError, and then what was there before is there still.

        They are there too where only the folder cannot be synced; what is said then is that a power cut may undo it.
        """
        path = os.path.realpath(self._path)
        content = json.dumps({"version": VERSION, **to_json(overrides)}, indent=1, allow_nan=False).encode("ascii")
        folder = os.path.dirname(path)
        descriptor, beside = _make_beside(path)
        try:
            with open(descriptor, "wb") as file:
                file.write(content + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(beside)
            raise
        try:
            _sync_folder(folder)
        except OSError as error:
            why = error.strerror or error
            return f"{self._path}: written, but its folder cannot be synced ({why}): a power cut may undo it"
        return None


def _prefix(path: str) -> str:
    """What begins the names of files that are to become this one: others in the same folder have theirs."""
    return f".lbsvc-state.{hashlib.sha256(os.fsencode(os.path.basename(path))).hexdigest()[:16]}."


def _make_beside(path: str) -> tuple[int, str]:
    return tempfile.mkstemp(prefix=_prefix(path), dir=os.path.dirname(path))  # of mode 0600


def _remove_left(path: str, before: int) -> None:
    """Remove what was to become the file and was last written before this time (nanoseconds, by the folder's disk)."""
    prefix = _prefix(path)
    with suppress(OSError), os.scandir(os.path.dirname(path)) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with suppress(OSError):
                    if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime_ns < before:
                        os.unlink(entry.path)


def _read(path: str) -> Overrides:
    # Without O_NONBLOCK a named pipe would hold the start up until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes")
    found = json.loads(content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    if not isinstance(found, dict) or "version" not in found:
        raise ValueError("no version")
    version = found.pop("version")
    if isinstance(version, bool) or version != VERSION:
        raise ValueError(f"not of version {VERSION}")
    return from_json(found)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _set_aside(path: str) -> str:
    for count in itertools.count():
        aside = f"{path}.damaged-{count}" if count else f"{path}.damaged"
        if not os.path.lexists(aside):
            os.rename(path, aside)
            return aside
    raise AssertionError


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that syncs no folders
            raise
    finally:
        os.close(descriptor)
