"""Readers of single values: durations, sizes, shares, numbers, words, text.

Promises: durations come out as seconds, sizes as bytes, shares as 0 to 1, all finite and within bounds; what does not
fit is refused with a rule that says what would. The `parse_…` functions are pure and give None for what they cannot
read. Used by the key tables (listeners.py, routes.py, edits.py, pools.py, service.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from lbsvc.config.shapes import DEFINITIONS, OFF, TEXT, VARIABLE, either, fitting, one_of, or_none, shaped, whole
from lbsvc.config.walk import Spot, name_fault, named
from lbsvc.core.methods import METHODS

T = TypeVar("T")

LONGEST: Final = 10 * 365 * 86400.0  # seconds: no duration is longer
LARGEST: Final = 1 << 50  # bytes

_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER: Final = r"[0-9]{1,30}(?:\.[0-9]{1,30})?"
_DURATION: Final = re.compile(
    rf"(?=[0-9])(?:({_NUMBER})d)?(?:({_NUMBER})h)?(?:({_NUMBER})m)?(?:({_NUMBER})s)?(?:({_NUMBER})ms)?"
)
_PLAIN_NUMBER: Final = re.compile(_NUMBER)
_SIZE: Final = re.compile(rf"({_NUMBER}) ?([A-Za-z]*)")
_SIZES: Final = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
#: The same units for those who know no way to say that case does not count.
_UNIT: Final = "(?:[KkMmGg][Ii]?)?[Bb]|"
_SHARE: Final = re.compile(rf"({_NUMBER}) ?%")
_RATE: Final = re.compile(rf"({_NUMBER}) ?/ ?(s|m|h)")
TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: What is wrong with the second of two names of headers.
TWICE: Final = "is here twice: case does not count in names of headers"
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_LINE: Final = re.compile(r"[\x20-\x7e\t]*")

# Shapes of their own, which are said once.
DEFINITIONS["duration"] = fitting(re.compile(f"{_DURATION.pattern}|{_NUMBER}"), description="250ms, 5s, 1m30s, 1h")
DEFINITIONS["size"] = fitting(re.compile(_SIZE.pattern.replace("[A-Za-z]*", _UNIT)), description="512, 16KiB, 8MiB")
DEFINITIONS["share"] = fitting(_SHARE, description="0% to 100%")
DEFINITIONS["rate"] = fitting(_RATE, description="100/s, 6000/m, 10/h")
DURATION: Final = {"$ref": "#/$defs/duration"}
SIZE: Final = {"$ref": "#/$defs/size"}
SHARE: Final = {"$ref": "#/$defs/share"}
RATE: Final = {"$ref": "#/$defs/rate"}


def parse_duration(text: str) -> float | None:
    """Seconds: 250ms, 5s, 1m30s, 1h, or a plain number of seconds."""
    if _PLAIN_NUMBER.fullmatch(text):
        return float(text)
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    return sum(float(n) * unit for n, unit in zip(match.groups(), _UNITS.values(), strict=True) if n is not None)


def parse_size(text: str) -> int | None:
    """Bytes: 512, 16KiB, 8MiB; KB, MB and GB are powers of ten. K and M alone mean both, so they mean nothing."""
    match = _SIZE.fullmatch(text)
    if match is None or match[2].lower() not in _SIZES:
        return None
    unit = _SIZES[match[2].lower()]
    return round(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit


def parse_share(text: str) -> float | None:
    """0 to 1, from 0% to 100%."""
    match = _SHARE.fullmatch(text)
    return float(match[1]) / 100 if match and float(match[1]) <= 100 else None


def parse_rate(text: str) -> float | None:
    """Events a second: 100/s, 6000/m, 10/h."""
    match = _RATE.fullmatch(text)
    return float(match[1]) / _UNITS[match[2]] if match else None


def _bounded(spot: Spot, value: T, low: T, high: T, show: Callable[[T], str]) -> T:
    if value < low:  # type: ignore[operator]
        spot.expect(f"{show(low)} or more")
    if value > high:  # type: ignore[operator]
        spot.expect(f"{show(high)} or less")
    return value


def number(low: int, high: int) -> Callable[[Spot], int]:
    """Whole numbers from low to high."""

    @shaped(whole(low, high))
    def read(spot: Spot) -> int:
        value = spot.value
        if not isinstance(value, int) or isinstance(value, bool):
            spot.expect("a whole number")
        return _bounded(spot, value, low, high, str)

    return read


@shaped(either({"type": "boolean"}, VARIABLE))
def yes_no(spot: Spot) -> bool:
    value = spot.value
    if not isinstance(value, bool):
        spot.expect("true or false")
    return value


def show_duration(seconds: float) -> str:
    """A duration as people write it."""
    if seconds >= 86400:
        return f"{seconds / 86400:g}d"
    return f"{seconds:g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:g}ms"


def duration(low: float = 0.001, high: float = LONGEST) -> Callable[[Spot], float]:
    """Seconds from low to high. By default not 0: a timeout of nothing would end everything at once."""

    @shaped(either(DURATION, {"type": "number", "minimum": low, "maximum": high}))
    def read(spot: Spot) -> float:
        value = spot.value
        seconds: float | None = None
        if isinstance(value, str):
            negative = value.startswith("-")
            seconds = parse_duration(value.removeprefix("-"))
            if seconds is not None and negative:
                seconds = -seconds
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            seconds = float(value)
        if seconds is None or not math.isfinite(seconds):
            spot.expect("a duration such as 250ms, 5s, 1m30s or 1h")
        return _bounded(spot, seconds, low, high, show_duration)

    return read


def show_size(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def size(low: int = 0, high: int = LARGEST) -> Callable[[Spot], int]:
    """Bytes from low to high."""

    @shaped(either(SIZE, {"type": "integer", "minimum": low, "maximum": high}))
    def read(spot: Spot) -> int:
        value = spot.value
        found = parse_size(value) if isinstance(value, str) else value
        if not isinstance(found, int) or isinstance(found, bool):
            spot.expect("a size such as 512, 16KiB or 8MiB")
        return _bounded(spot, found, low, high, show_size)

    return read


@shaped(SHARE)
def share(spot: Spot) -> float:
    value = spot.value
    found = parse_share(value) if isinstance(value, str) else None
    if found is None:
        spot.expect("a share from 0% to 100%, with the % sign")
    return found


def nullable(reader: Callable[[Spot], T]) -> Callable[[Spot], T | None]:
    """null means none; so do off and false."""

    @shaped(or_none(reader, OFF, VARIABLE))
    def read(spot: Spot) -> T | None:
        return None if spot.is_null or spot.is_off else reader(spot)

    return read


def nullable_text(reader: Callable[[Spot], T]) -> Callable[[Spot], T | None]:
    """null means none; off is text like any other."""

    @shaped(or_none(reader, VARIABLE))
    def read(spot: Spot) -> T | None:
        return None if spot.is_null else reader(spot)

    return read


def words(choices: tuple[str, ...], last: str = "or") -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} {last} {choices[-1]}"


def word(*choices: str) -> Callable[[Spot], str]:
    """One of the words. Where off is one, so is false."""

    @shaped(one_of(*choices, *([False] if "off" in choices else [])))
    def read(spot: Spot) -> str:
        text = spot.text()
        if spot.value is False and "off" in choices:
            return "off"
        if text not in choices:
            spot.refuse(f"must be {words(choices)}{spot.got(choices)}")
        return text

    return read


@shaped(TEXT)
def text(spot: Spot) -> str:
    """Any text, also an empty one."""
    found = spot.text()
    if found is None:
        hint = "" if not spot.is_scalar or spot.is_null else ": quote it"
        spot.expect(f"text{hint}")
    return found


def matching(pattern: re.Pattern[str], rule: str, longest: int = 4096) -> Callable[[Spot], str]:
    """Text that a pattern fits as a whole."""

    @shaped(fitting(pattern, maxLength=longest))
    def read(spot: Spot) -> str:
        found = text(spot)
        if not pattern.fullmatch(found):
            spot.expect(rule)
        if len(found) > longest:
            spot.refuse(f"must be at most {longest} characters long")
        return found

    return read


@shaped(fitting(re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Z]{1,64}")))
def method(spot: Spot) -> str:
    """A request method; they are case-sensitive, and those in use are in capitals."""
    found = text(spot)
    if not TOKEN.fullmatch(found) or len(found) > 64 or found != found.upper():
        spot.expect("a method such as GET, in capitals")
    return found


@shaped(one_of(*sorted(name.decode() for name in METHODS)))
def known_method(spot: Spot) -> str:
    """A method that is passed on: one that never comes would make a rule that never acts."""
    found = method(spot)
    if found.encode() not in METHODS:
        known = sorted(name.decode() for name in METHODS)
        spot.refuse(f"is no method that is passed on{spot.got(known)}")
    return found


header_value = matching(_LINE, "visible ASCII text on one line")
visible = matching(_VISIBLE, "visible ASCII text without spaces")


@shaped(fitting(re.compile(r"/[\x21-\x22\x24-\x7e]*"), maxLength=4096))
def target(spot: Spot) -> str:
    """A path that a request line can carry."""
    found = visible(spot)
    if not found.startswith("/"):
        spot.expect("a path that begins with /")
    if "#" in found:
        spot.expect("a path without #")
    return found


@shaped(fitting(re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")))
def label(spot: Spot) -> str:
    """A name that may appear in a response header, a metric label and a log."""
    found = text(spot)
    fault = name_fault(found)
    if fault or not found.isascii():
        spot.expect(fault or "ASCII text")
    return found


@shaped({"type": ["string", "null"], "maxLength": 4096, "pattern": f"^(?:{_VISIBLE.pattern})?$|\\$\\{{"})
def secret(spot: Spot) -> str:
    """A bearer token, or nothing. No message shows it."""
    if spot.is_null:
        return ""
    found = spot.text()
    if found is None:
        spot.refuse("must be text: quote it")
    if found and not _VISIBLE.fullmatch(found):
        spot.refuse("must be visible ASCII text without spaces")
    if len(found) > 4096:
        spot.refuse("must be at most 4096 characters long")
    return found


def header_fault(name: str, refused: Mapping[str, str]) -> str:
    """What is wrong with the name of a header, or ""; `refused` says so for names in lower case."""
    if not TOKEN.fullmatch(name) or len(name) > 256:
        return "is no name of a header"
    return refused.get(name.lower(), "")


def headers(
    *, refused: Mapping[str, str] = MappingProxyType({}), lower: bool = False
) -> Callable[[Spot], tuple[tuple[str, str], ...]]:
    """A mapping of header names to values; `refused` says of names (lower case) why they cannot be here."""

    @shaped(
        {
            "type": ["object", "null"],
            "propertyNames": {"pattern": f"^(?:{TOKEN.pattern})$", "maxLength": 256},
            "additionalProperties": fitting(_LINE, maxLength=4096),
        }
    )
    def read(spot: Spot) -> tuple[tuple[str, str], ...]:
        seen: set[str] = set()

        def one(child: Spot, name: str) -> str:
            folded = name.lower()
            fault = header_fault(name, refused)
            if fault:
                child.refuse(fault)
            if folded in seen:
                child.refuse(TWICE)
            seen.add(folded)
            return header_value(child).strip()

        found = named(one, checked=False)(spot)
        return tuple((name.lower() if lower else name, value) for name, value in found.items())

    return read
