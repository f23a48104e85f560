"""What a route changes on the way: strip_prefix, rewrite, request_headers and response_headers.

Promises: no edit can touch what frames or routes a message, and whatever a rewrite's template says has been through
`re`'s own parser, so that nothing of this can fail on a request. Called by routes.py; http/edits.py does what these say.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any, Final

from lbsvc.config.addresses import parse_port, split_port
from lbsvc.config.schema import HeaderEdits
from lbsvc.config.shapes import NULL, SOME_TEXT, either, like, shaped
from lbsvc.config.values import TWICE, header_fault, headers, matching, target, text, visible
from lbsvc.config.walk import Refused, Section, Spot, listing
from lbsvc.core.router import normal_path
from lbsvc.errors import ProtocolViolation

_BY_US: Final = "is set by the balancer itself"
#: What frames or routes a message, belongs to one hop, or is the contract's; the same in both directions.
FRAMING: Final = dict.fromkeys(
    (
        *(
            "connection",
            "content-length",
            "expect",
            "http2-settings",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
        ),
        *("transfer-encoding", "upgrade", "x-request-id"),
    ),
    _BY_US,
)
_HOST: Final = {"host": "can only be set: a request has exactly one"}
#: In answers, beside the rest.
_IN_ANSWERS: Final = {"date": _BY_US, "host": "means nothing in an answer"}


def path_in_normal_form(spot: Spot, written: str) -> str:
    """A path as it is matched; one that no request can have is refused."""
    try:
        return normal_path(written.encode("ascii")).decode("ascii")
    except ProtocolViolation as error:
        spot.refuse(f"can never match: {error.detail}{spot.got()}")


@shaped(like(target))
def strip_prefix(spot: Spot) -> str:
    """A prefix that is taken off paths, in the normal form in which these are matched: /v1."""
    found = target(spot)
    if "*" in found or "?" in found:
        spot.expect("a path without * and ?")
    found = path_in_normal_form(spot, found)
    if found.endswith("/"):
        spot.expect("a path without / at its end, such as /v1")
    return found


def is_ever_there(prefix: str, pattern: str) -> bool:
    """Whether a path that fits the pattern of a match can begin with the prefix, on a segment border."""
    if not pattern.endswith("/*"):
        return _is_within(pattern, prefix)
    stem = pattern.removesuffix("/*")
    return _is_within(stem, prefix) or _is_within(prefix, stem)


def _is_within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


# rewrite

_LONGEST: Final = 1024  # characters in an expression or its replacement
_expression = matching(re.compile(r"[\x20-\x7e]+"), "a regular expression in visible ASCII text", _LONGEST)
#: The group references of `re` that are no escapes of something else: `\0` and three digits are octal there.
_REFERENCE: Final = re.compile(r"\\[1-9][0-9]?(?![0-9])|\\g<[A-Za-z0-9_]+>")
_FOREIGN_REFERENCE: Final = re.compile(r"\$(?:[0-9]|\{)")


def _compiled(written: str) -> re.Pattern[str] | str:
    """The expression, or what is wrong with it. It must mean something for text and for bytes alike: a path is both."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what may mean something else in the next Python
            re.compile(written.encode("ascii"))
            return re.compile(written)
    except re.error as error:
        return f"{error.msg} at position {error.pos}"
    except (OverflowError, ValueError, Warning) as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"


def _pattern(spot: Spot) -> re.Pattern[str]:
    found = _compiled(_expression(spot))
    if isinstance(found, str):
        # The parser's words may repeat what was given: not where that came out of a variable.
        said = "" if spot.origin else f": {_printable(found)}"
        spot.refuse(f"is no regular expression that can be used{said}{spot.got()}")
    return found


def _printable(said: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in said)


def _replacement(spot: Spot) -> str:
    """A path with references to groups; that these exist is for `_rewrite` to see."""
    found = visible(spot)
    if len(found) > _LONGEST:
        spot.refuse(f"must be at most {_LONGEST} characters long")
    plain = _REFERENCE.sub("x", found)
    if "\\" in plain:
        spot.refuse(f"can hold no escapes but \\1 to \\99 and \\g<name>{spot.got()}")
    if _FOREIGN_REFERENCE.search(plain):
        spot.refuse(f"must refer to groups by \\1, not by ${spot.got()}")
    if not found.startswith(("/", "\\")):
        spot.expect("a path that begins with / or with a group")
    if "?" in plain or "#" in plain:
        spot.expect("a path without ? and #")
    try:
        normal_path(("/" if found.startswith("\\") else "").encode() + plain.encode("ascii"))
    except ProtocolViolation as error:
        spot.refuse(f"is no path that a request may have: {error.detail}{spot.got()}")
    return found


@shaped({"type": ["array", "null"], "items": SOME_TEXT, "minItems": 2, "maxItems": 2})
def _rewrite(spot: Spot) -> tuple[str, str] | None:
    if spot.is_null:
        return None
    places = [spot.below(entry, path) for entry, path in spot.items()]
    if len(places) != 2:
        spot.expect("a list of two: a regular expression, and what takes its place")
    pattern: re.Pattern[str] | None = None
    try:
        pattern = _pattern(places[0])
    except Refused:
        pass  # what is wrong with the replacement is told all the same
    replacement = _replacement(places[1])
    if pattern is None:
        raise Refused
    try:
        pattern.sub(replacement, "")  # parses the template, whether it is needed or not
    except (re.error, IndexError) as error:
        said = "" if places[1].origin else f": {_printable(str(error))}"
        places[1].refuse(f"does not fit the regular expression{said}{places[1].got()}")
    return pattern.pattern, replacement


REWRITE: Final[Section[tuple[str, str] | None]] = Section(
    {"path": _rewrite}, lambda spot, found: found.get("path"), off=(None,)
)


# headers


def _names(spot: Spot, refused: Mapping[str, str]) -> tuple[str, ...]:
    if spot.is_null:
        return ()
    seen: set[str] = set()

    def one(place: Spot) -> str:
        name = text(place)
        fault = header_fault(name, refused)
        if "*" in name:
            fault = "is no name of a header: write out each"
        if fault or name.lower() in seen:
            place.refuse((fault or TWICE) + place.got())
        seen.add(name.lower())
        return name.lower()

    return listing(one, single=True)(spot)


_REMOVED: Final = either({"type": "array", "items": SOME_TEXT}, SOME_TEXT, NULL)


def _header_edits(spot: Spot, found: dict[str, Any]) -> HeaderEdits:
    edits = HeaderEdits(**found)
    settled = {name.lower(): (name, value) for name, value in edits.set}
    if edits.remove:
        removed = spot.at("remove")
        for entry, path in removed.items(single=True):
            place = removed.below(entry, path)
            name = (place.text() or "").lower()
            if name in settled and name in edits.remove:
                place.wrong(f"is in set already, which replaces what was there{place.got()}")
    if "host" in settled:
        name, value = settled["host"]
        place = spot.at("set").at(name)
        try:
            host, port = split_port(value)
            if not host:
                place.expect("a host, or host:port")
            if port is not None:
                parse_port(port, 1)
        except ValueError as error:
            place.refuse(f"{error}{place.got()}")
    return edits


def _editing(refused: dict[str, str], settable: dict[str, str]) -> Section[HeaderEdits]:
    """A section of header edits, in which names can be refused, or be settable only."""
    return Section(
        {
            "set": headers(refused=refused),
            "add": headers(refused=refused | settable),
            "remove": shaped(_REMOVED)(lambda spot: _names(spot, refused | settable)),
        },
        _header_edits,
        off=(HeaderEdits(),),
    )


REQUEST_HEADERS: Final = _editing(FRAMING, _HOST)
RESPONSE_HEADERS: Final = _editing(FRAMING | _IN_ANSWERS, {})
