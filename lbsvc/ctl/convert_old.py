"""An old configuration as it is read key by key: what was taken, what could not be, and where each stands.

Promises: every key of an `Old` that nobody takes is reported as left out, once, with its place; a value of the wrong kind is
a mistake, which is said too and ends in `ConfigErrors` (exit code 78) when all has been read. Keys are found in any case,
as Go's JSON finds them. Called by convert.py and the converters beside it; YAML (and JSON, which is YAML) is read by
config/document.py, so that all lines name the file as `FILE:line:column: key: …`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final, NoReturn

from lbsvc.config.document import Entry, Items, Mapping, Node, Scalar, read_document, spell
from lbsvc.config.values import parse_duration
from lbsvc.errors import ConfigErrors, Mistake

_UNKNOWN: Final = "is not known and is left out"
#: What Go writes besides: 1.5h, 100us.
_GO: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+")
_GO_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
_GO_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Report:
    """What there is to say about a conversion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._lines: list[Mistake] = []
        self._mistakes: list[Mistake] = []

    def lose(self, line: int, column: int, key: str, message: str) -> None:
        """Something is not carried over, or means something else now."""
        self._lines.append(Mistake(self.file, line, column, key, message))

    def wrong(self, line: int, column: int, key: str, message: str) -> None:
        """Something cannot be understood."""
        self._mistakes.append(Mistake(self.file, line, column, key, message))

    @property
    def lines(self) -> list[str]:
        """What was said, in the order of the places."""
        return [str(each) for each in sorted(dict.fromkeys(self._lines), key=lambda each: (each.line, each.column))]

    def check(self) -> None:
        """Raise ConfigErrors if something could not be understood."""
        if self._mistakes:
            raise ConfigErrors(sorted(self._mistakes, key=lambda each: (each.line, each.column)))

    def stop(self, message: str) -> NoReturn:
        """The file as a whole cannot be understood."""
        raise ConfigErrors([Mistake(self.file, 0, 0, "", message)])


def read_old(text: str, report: Report) -> Mapping | None:
    """The tree of a YAML or JSON text; None where it is no mapping. Raises ConfigErrors where it is neither."""
    stripped = text.lstrip("\ufeff \t\r\n")
    if stripped.startswith("{"):
        try:
            json.loads(text.removeprefix("\ufeff"))
        except ValueError:
            pass
        else:
            text = text.replace("\t", " ")  # lawful in JSON, and never within its strings; YAML is not so sure
    root, mistakes = read_document(text, report.file)
    if mistakes:
        raise ConfigErrors(mistakes)
    return root if isinstance(root, Mapping) else None


class Old:
    """One mapping of the old file; an empty one where there is none. Each key is taken once."""

    def __init__(self, report: Report, node: Mapping, path: str = "") -> None:
        self.report = report
        self.node = node
        self.path = path
        self._left = {entry.key.lower(): entry for entry in node.entries.values()}
        self._all = dict(self._left)

    def has(self, key: str) -> bool:
        """Whether it stands there, and is not null."""
        entry = self._all.get(key.lower())
        return entry is not None and not _is_null(entry.value)

    def lose(self, key: str, message: str) -> None:
        """Say what becomes of a key (or of the whole mapping, where it is not there)."""
        entry = self._all.get(key.lower())
        line, column = (entry.line, entry.column) if entry else (self.node.line, self.node.column)
        self.report.lose(line, column, spell(self.path, entry.key if entry else key), message)

    def wrong(self, key: str, message: str) -> None:
        entry = self._all.get(key.lower())
        line, column = (entry.line, entry.column) if entry else (self.node.line, self.node.column)
        name = spell(self.path, entry.key if entry else key) if key else self.path
        self.report.wrong(line, column, name, message)

    def _take(self, key: str) -> Node | None:
        entry = self._left.pop(key.lower(), None)
        return None if entry is None or _is_null(entry.value) else entry.value

    def _expect(self, key: str, kind: str) -> None:
        self.wrong(key, f"must be {kind}")

    def text(self, key: str) -> str | None:
        """Text, or a number as it is written."""
        node = self._take(key)
        if node is None:
            return None
        if not isinstance(node, Scalar):
            self._expect(key, "text")
            return None
        return node.text.strip() or None

    def whole(self, key: str, low: int = 0, high: int = 1 << 53) -> int | None:
        """A whole number, also in quotes."""
        node = self._take(key)
        if node is None:
            return None
        found = node.text.strip() if isinstance(node, Scalar) else ""
        if not re.fullmatch(r"[0-9]{1,15}", found) or not low <= int(found) <= high:
            self._expect(key, f"a whole number from {low} to {high}" if high < 1 << 53 else f"a number, {low} or more")
            return None
        return int(found)

    def number(self, key: str) -> float | None:
        node = self._take(key)
        if node is None:
            return None
        if not isinstance(node, Scalar) or isinstance(node.value, (bool, str)) or node.value is None:
            self._expect(key, "a number")
            return None
        return float(node.value)

    def yes(self, key: str) -> bool | None:
        """true or false, as YAML 1.1 says them too."""
        node = self._take(key)
        if node is None:
            return None
        word = node.text.strip().lower() if isinstance(node, Scalar) else ""
        if word not in ("true", "false", "yes", "no", "on", "off"):
            self._expect(key, "true or false")
            return None
        return word in ("true", "yes", "on")

    def duration(self, key: str) -> str | None:
        """A duration as our configuration writes it; of Go's kind, or a number of seconds. 0 is none."""
        node = self._take(key)
        if node is None:
            return None
        seconds = _seconds(node.text.strip()) if isinstance(node, Scalar) else None
        if seconds is None or not math.isfinite(seconds):
            self._expect(key, "a duration such as 30s, or a number of seconds")
            return None
        if seconds == 0:
            self.lose(key, "is 0, which was no limit or a busy loop: the default holds")
            return None
        return show_seconds(seconds)

    def within(self, key: str) -> Old:
        """The mapping that stands there; whoever takes it must `close` it."""
        node = self._take(key)
        if node is not None and not isinstance(node, Mapping):
            self._expect(key, "a section: keys with values")
            node = None
        return Old(self.report, node or Mapping({}, self.node.line, self.node.column), spell(self.path, key))

    def entries(self, key: str) -> list[tuple[Entry, str]]:
        """The items of a list, each with its path."""
        node = self._take(key)
        if node is None:
            return []
        if not isinstance(node, Items):
            self._expect(key, "a list")
            return []
        return [(item, f"{spell(self.path, key)}[{i}]") for i, item in enumerate(node.items)]

    def texts(self, key: str) -> list[str]:
        """A list of texts, or one alone."""
        node = self._take(key)
        if node is None:
            return []
        items = [item.value for item in node.items] if isinstance(node, Items) else [node]
        if not all(isinstance(item, Scalar) for item in items):
            self._expect(key, "a list of texts")
            return []
        return [item.text.strip() for item in items if isinstance(item, Scalar)]

    def close(self) -> None:
        """All has been taken that is known: the rest is left out."""
        for entry in self._left.values():
            self.report.lose(entry.line, entry.column, spell(self.path, entry.key), _UNKNOWN)
        self._left.clear()


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _seconds(text: str) -> float | None:
    if _GO.fullmatch(text):
        return sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_PART.findall(text))
    return parse_duration(text)


def show_seconds(seconds: float) -> str:
    """As our configuration writes it: 500ms, 5s, 1m30s, 1h."""
    if seconds < 1 or seconds != int(seconds):
        return f"{max(seconds * 1000, 1):g}ms" if seconds < 100 else f"{seconds:.3f}s"
    whole = int(seconds)
    parts = ((whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)
