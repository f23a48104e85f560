"""What comes in from outside, read strictly: JSON bodies, queries, names in paths, entity tags.

Promises: what cannot be read raises `Malformed` (400), what can be read and makes no sense `Unfit` (422), both in words that
say what would be right; no value is taken for another (a duplicate key, a number too long, half a surrogate, a key that
nobody knows). Pure. Used by api.py, calls.py and aliases.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TAG: Final = re.compile(r'(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*"))?')

_TAGS: Final = "If-Match must be * or a list of quoted entity tags"

#: Deeper than any value that is asked for.
_DEEPEST: Final = 8
#: More values, keys included, than anything that is asked for has; what comes after this costs time for each of them.
MOST_VALUES: Final = 1000


class Malformed(ValueError):
    """It cannot be read: 400."""


class Unfit(ValueError):
    """It can be read, and is not what is asked for: 422."""


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body."""
    value = read_json(body)
    if not isinstance(value, dict):
        raise Unfit(f"the body must be a JSON object, not {kind(value)}")
    return value


def read_json(body: bytes) -> Any:
    """The JSON value in a body, of UTF-8 text as RFC 8259 has it."""
    if not body:
        raise Malformed("the body is empty: a JSON object is needed")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the body is not UTF-8 text") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Malformed(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except Malformed:
        raise
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON that can be read: a number too long, or too deep a nesting") from None
    if _plain(value, 0) > MOST_VALUES:
        raise Unfit(f"the body has more than {MOST_VALUES} keys and values: nothing that is asked for here has")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Malformed(f"the body has the key {shown(key)} twice")
        found[key] = value
    return found


def _no_constant(word: str) -> Any:
    raise Malformed(f"the body is not JSON: {word} is no JSON value")


def _plain(value: Any, depth: int) -> int:
    """How many values it has, if its text is text and it is no deeper than anybody needs."""
    count = 1
    if depth > _DEEPEST:
        raise Malformed("the body is nested too deeply")
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise Malformed("the body has half a surrogate pair: that is no text")
    elif isinstance(value, dict):
        for key, item in value.items():
            count += _plain(key, depth + 1) + _plain(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            count += _plain(item, depth + 1)
    return count


def only(fields: Mapping[str, Any], *known: str, at_least: int = 0) -> None:
    """Refuse keys that are not known, or an object with fewer than `at_least`."""
    words = ", ".join(known)
    for key in fields:
        if key not in known:
            raise Unfit(f"{shown(key)} is not known here: {words}")
    if len(fields) < at_least:
        raise Unfit(f"the object is empty: {words}")


def written(fields: Mapping[str, Any], key: str) -> str:
    """Text that must be there."""
    if key not in fields:
        raise Unfit(f"{key}: is missing")
    value = fields[key]
    if not isinstance(value, str):
        raise Unfit(f"{key}: must be text, not {kind(value)}")
    return value


def kind(value: Any) -> str:
    """What a JSON value is called."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else "text" if isinstance(value, str) else "a number"


def shown(text: str) -> str:
    """Foreign text for a message: quoted, escaped and short."""
    return json.dumps(text if len(text) <= 64 else text[:61] + "...")


def read_path(path: bytes) -> tuple[str, ...]:
    """The segments of a path, each decoded by itself, so that a name may hold a slash."""
    if _BAD_ESCAPE.search(path):
        raise Malformed("the path has a % without two hexadecimal digits")
    try:
        return tuple(unquote_to_bytes(segment).decode("utf-8") for segment in path[1:].split(b"/"))
    except UnicodeDecodeError:
        raise Malformed("the path is not UTF-8 text") from None


def read_query(query: bytes, known: Collection[str]) -> dict[str, str]:
    """The parameters of a query, of which each is known and there once: one that is misspelt must not be passed over."""
    if _BAD_ESCAPE.search(query):
        raise Malformed("the query has a % without two hexadecimal digits")
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=20
        )
    except ValueError:
        raise Malformed("the query is not UTF-8 text, percent-encoded, of at most 20 parameters") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            hint = f": {', '.join(known)}" if known else ": there are no parameters here"
            raise Malformed(f"the parameter {shown(name)} is not known{hint}")
        if name in found:
            raise Malformed(f"the parameter {shown(name)} is there twice")
        found[name] = value
    return found


def matches(values: Collection[bytes], tag: str) -> bool:
    """Whether an If-Match header lets a change of what has this entity tag pass (RFC 9110, 13.1.1)."""
    text = b",".join(values).decode("latin-1")
    if text.strip() == "*":
        return True
    found: list[tuple[str | None, str | None]] = []
    for item in text.split(","):
        match = _TAG.fullmatch(item.strip(" \t"))
        if match is None:
            raise Malformed(_TAGS)
        found.append((match[1], match[2]))
    if not any(each for _, each in found):  # empty items are allowed, nothing else is not
        raise Malformed(_TAGS)
    return (None, tag) in found  # the comparison is strong: W/ never matches
