"""A configuration from a file, a text or the command line: frozen settings, or every mistake in it.

Promises: any file, text or option gives `Loaded` or raises `ConfigErrors`, never anything else; the mistakes come in
the order of their places, the file is named as it was given. Reading it takes a bounded number of bytes, and waits for
nobody, but at the start for whoever writes into a stream that the process was given (/dev/stdin, `<(…)` of a shell). Called
by tap.py at start, by reloads and (check_text) for /config/check. No socket is opened; no other files are read than the
certificates and keys that `tls` names (tls.py), by which the time of day (`wall`, in Unix seconds) matters too: an expired
one is noted.
"""

from __future__ import annotations

import datetime
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from lbsvc.config import document
from lbsvc.config.checks import check
from lbsvc.config.document import Entry, Items, Node, Scalar, read_document
from lbsvc.config.schema import LogSettings, Settings
from lbsvc.config.securing import secured
from lbsvc.config.service import LEVELS, TOP
from lbsvc.config.versions import check_versions
from lbsvc.config.walk import Refused, Spot, Walk
from lbsvc.errors import ConfigErrors, Mistake

COMMAND_LINE: Final = "command line"
#: Names of what the process has been given open, and what begins the names of others like it.
_GIVEN: Final = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")

Wall: TypeAlias = Callable[[], float]


def _time_of_day() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


@dataclass(frozen=True)
class Loaded:
    """Settings that can be used, and what is to be said about them (for --check and standard error)."""

    settings: Settings
    notes: list[str]
    #: where each key stands, by its path, for whoever finds out later that the system refuses what it asks for
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def load_file(path: str, env: Mapping[str, str], wall: Wall = _time_of_day, *, is_start: bool = False) -> Loaded:
    """Read a file; relative paths in it are relative to its folder. At the start it may be a stream that we were given."""
    try:
        source = _read(path, is_start and path.startswith(_GIVEN))
    except OSError as error:
        raise _unreadable(path, error.strerror or "unknown error") from None
    except ValueError:
        raise _unreadable(path, "no file can have this name") from None
    return load_text(source, path, env, wall)


def _read(path: str, may_wait: bool) -> bytes:
    # Not blocking: to open a pipe would wait for its writer, and to read it for his last word.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        mode = os.fstat(descriptor).st_mode
        if may_wait:
            os.set_blocking(descriptor, True)
        elif stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        elif not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(document.MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _unreadable(path: str, why: str) -> ConfigErrors:
    return ConfigErrors([Mistake(path, 0, 0, "", f"cannot be read: {why}")])


def load_text(text: str | bytes, filename: str, env: Mapping[str, str] | None, wall: Wall = _time_of_day) -> Loaded:
    """Read a text that stands in `filename`; without `env` no variable is expanded."""
    root, mistakes = read_document(text, filename)
    return _load(root, mistakes, filename, env, wall)


def check_text(text: str | bytes, filename: str) -> list[str]:
    """The notes on a text that came from elsewhere, as if it stood in `filename`. Raises ConfigErrors.

    It sees nothing of this machine: no variable is expanded, and certificates and keys are not read, which a note says at
    each. Whoever asks would else learn which files there are, and what we think of what is in them.
    """
    root, mistakes = read_document(text, filename)
    return _load(root, mistakes, filename, None, _time_of_day, reads_files=False).notes


def from_options(listen: str, backends: str, algorithm: str | None, env: Mapping[str, str]) -> Loaded:
    """What `--listen`, `--backends` and `--algorithm` ask for: one http listener and one pool, both named main."""
    listener = _mapping(
        bind=Entry("bind", _split(listen), option="--listen"),
        pool=Entry("pool", Scalar("main", "main")),
    )
    pool = _mapping(backends=Entry("backends", _split(backends), option="--backends"))
    if algorithm is not None:
        pool.entries["algorithm"] = Entry("algorithm", Scalar(algorithm, algorithm), option="--algorithm")
    root = _mapping(
        listeners=Entry("listeners", _mapping(main=Entry("main", listener))),
        pools=Entry("pools", _mapping(main=Entry("main", pool))),
    )
    return _load(root, [], COMMAND_LINE, env, _time_of_day, expand=False)


def _mapping(**entries: Entry) -> document.Mapping:
    return document.Mapping(dict(entries))


def _split(option: str) -> Items:
    parts = [part.strip() for part in option.split(",")]
    return Items([Entry("", Scalar(part, part)) for part in parts])


def _load(
    root: Node,
    mistakes: list[Mistake],
    filename: str,
    env: Mapping[str, str] | None,
    wall: Wall,
    *,
    expand: bool = True,
    reads_files: bool = True,
) -> Loaded:
    walk = Walk(filename, env if expand else None, wall, reads_files=reads_files)
    settings: Settings | None = None
    try:
        settings = TOP(Spot(walk, root, "", max(root.line, 1), max(root.column, 1)))
    except Refused:
        pass
    check(walk, settings)
    check_versions(walk)
    settings = secured(walk, settings)
    found = sorted(dict.fromkeys([*mistakes, *walk.mistakes]), key=lambda m: (m.line, m.column))
    if found or settings is None:
        raise ConfigErrors(found)
    return Loaded(replace(settings, log=_log_level(settings.log, walk, env or {})), walk.notes, dict(_places(root, "")))


def _places(node: Node, path: str) -> Iterator[tuple[str, tuple[int, int]]]:
    if isinstance(node, document.Mapping):
        for entry in node.entries.values():
            below = document.spell(path, entry.key)
            yield below, (entry.line, entry.column)
            yield from _places(entry.value, below)


def _log_level(log: LogSettings, walk: Walk, env: Mapping[str, str]) -> LogSettings:
    """LOG_LEVEL overrides the level; one that is none is noted, for other programs use the name too."""
    asked = env.get("LOG_LEVEL", "").lower()
    level = {"warning": "warn"}.get(asked, asked)
    if level in LEVELS:
        return replace(log, level=level)
    if level:
        walk.note("log.level", f"LOG_LEVEL is none of {', '.join(LEVELS)} and is ignored")
    return log
