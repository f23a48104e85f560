"""A configuration of ours that comes out of an old one: its pieces, and how it is written.

Promises: what is written is YAML that config/document.py reads back as the same values, whatever is in them; `${` of the old
file stays text. A backend that is named twice becomes one. Called by convert.py and the converters beside it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from lbsvc.config.addresses import AddressError, parse_address, parse_bind
from lbsvc.config.document import Entry, Mapping, Scalar
from lbsvc.config.scalars import resolve
from lbsvc.core.algorithms import canonical_algorithm
from lbsvc.ctl.convert_old import Old, Report

#: Text that YAML leaves alone without quotes, wherever it stands.
_PLAIN: Final = re.compile(r"[A-Za-z0-9/_.][A-Za-z0-9/_.-]*(?::(?![ ])[A-Za-z0-9/_.:-]*[A-Za-z0-9/_.-])?")
#: What a document may not hold as it is.
_UNWANTED: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_NAME: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")

#: Where the pages are that the old one had on its own port.
ADMIN: Final = "127.0.0.1:9901"


@dataclass
class New:
    """The new file: `listener` is the one of it, `pools` by name, and further sections."""

    listener: dict[str, Any] = field(default_factory=dict)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)

    @property
    def tree(self) -> dict[str, Any]:
        return {"listeners": {"main": self.listener}, "pools": self.pools, **self.rest}


@dataclass
class OldBackend:
    """A backend as it was read."""

    address: str
    name: str | None = None
    weight: int | None = None
    paths: tuple[str, ...] = ()


def bind(old: Old, key: str, host: str, default: str) -> str:
    """Where to listen: `key` holds a port, or host:port, and `host` is where no host is said."""
    written = (old.text(key) or default).removeprefix("tcp://")
    before, colon, port = written.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        old.wrong(key, "needs a port from 1 to 65535")
        port = "1"
    host = before if colon and before else host
    if host in ("*", "[::]", "::"):
        host = ""
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    found = f"{shown}:{int(port)}"
    try:
        parse_bind(found)
    except AddressError as error:
        old.wrong(key, str(error))
    return found


def algorithm(old: Old, key: str, known: dict[str, str], default: str) -> tuple[str, str]:
    """The old word (without case, - and _) and ours. `known` are its words, spelt so; others of ours do too."""
    written = old.text(key)
    word = (written or default).lower().replace("-", "").replace("_", "")
    found = known.get(word) or canonical_algorithm(word)
    if found is None:
        old.wrong(key, f"is no algorithm that is known: {', '.join(known)}")
        return word, "round_robin"
    return word, found


def url_backend(report: Report, url: str, place: tuple[int, int], path: str) -> str | None:
    """The address of a backend that was written as a URL; what a URL has besides is said to be lost."""
    line, column = place
    text = url.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if not host or parts.scheme not in ("http", "https") or ("://" not in text and port is None):
        report.wrong(line, column, path, "is no URL of a backend, such as http://10.0.0.1:8001")
        return None
    if parts.username is not None or parts.password is not None:
        report.lose(
            line, column, path, "the user name and password in it are left out: they were not sent to it either"
        )
    if parts.path not in ("", "/") or parts.query:
        report.lose(
            line, column, path, "the path in it is left out: requests keep their own (a route's `rewrite` changes it)"
        )
    shown = f"[{host}]" if ":" in host else host
    return plain_backend(report, f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}"), place, path)


def plain_backend(report: Report, address: str, place: tuple[int, int], path: str) -> str | None:
    """The address of a backend that was written as host:port."""
    try:
        parse_address(address)
    except AddressError as error:
        report.wrong(*place, path, str(error))
        return None
    return address


def mapping_of(report: Report, entry: Entry, path: str) -> Old | None:
    """An item of a list that must be a mapping."""
    if isinstance(entry.value, Mapping):
        return Old(report, entry.value, path)
    report.wrong(entry.line, entry.column, path, "must be a section: keys with values")
    return None


def scalar_of(entry: Entry) -> str | None:
    """An item of a list that is a text."""
    return entry.value.text.strip() if isinstance(entry.value, Scalar) and entry.value.text.strip() else None


def backends(old: Old, key: str, found: list[OldBackend], *, weights: bool) -> list[Any]:
    """As our pools list them. Without `weights` the old algorithm did not look at them, and ours would."""
    names: set[str] = set()
    merged: dict[str, OldBackend] = {}
    for each in found:
        before = merged.get(each.address)
        if before is not None:
            old.lose(key, f"has {each.address} more than once: here it is one backend, with the weights together")
            before.weight = (1 if before.weight is None else before.weight) + (
                1 if each.weight is None else each.weight
            )
            continue
        merged[each.address] = each
    if not weights and any(each.weight not in (None, 1) for each in merged.values()):
        old.lose(key, "weights are left out: its algorithm did not look at them, and here they always count")
    written: list[Any] = []
    for each in merged.values():
        item: dict[str, Any] = {"address": each.address}
        if each.name is not None:
            if each.name in names or not _NAME.fullmatch(each.name):
                old.lose(key, f"a name is left out: it is there twice, or cannot be one ({each.address})")
            else:
                item["name"] = each.name
                names.add(each.name)
        if weights and each.weight is not None:
            item["weight"] = each.weight
        written.append(each.address if len(item) == 1 else item)
    if not written:
        old.wrong(key, "needs at least one backend")
    return written


def write(tree: dict[str, Any], comments: list[str]) -> str:
    """The text of a configuration, with lines of comment before it."""
    lines = [f"# {' '.join(line.split())}" for line in comments]
    return "\n".join([*lines, "", *_lines(tree, "")]) + "\n"


def _lines(tree: dict[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in tree.items():
        name = _text(key)
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            lines.append(f"{indent}{name}:")
            lines += [f"{indent}  - {_flow(item)}" for item in value]
        else:
            lines.append(f"{indent}{name}: {_flow(value)}")
    return lines


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else str(value)


def _text(text: str) -> str:
    text = text.replace("${", "$${")
    if _PLAIN.fullmatch(text) and isinstance(resolve(text), str):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNWANTED.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
