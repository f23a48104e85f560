"""YAML text to a tree of our own nodes: each knows its place (1-based), and nothing has a meaning yet.

Promises: any text or bytes give a tree or Mistakes, never another exception; duplicate keys, tags, a second document,
unknown anchors and keys that are no text are mistakes, collected as far as the syntax allows; nesting and what aliases
multiply are bounded, so that no text costs more than a small multiple of its own size. Anchors, aliases and merge
keys (`<<`) work: an entry that was merged keeps the place where it is written. Called by loader.py.

Decision: 2026-11, our own composer over PyYAML's events (libyaml's where there is one) instead of yaml.compose. The
composers recurse without a bound, libyaml's on the C stack, resolve scalars by YAML 1.1, raise at the first fault, and
lose where an alias stands. The events have none of these troubles.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

import yaml

from lbsvc.config.scalars import Plain, resolve
from lbsvc.config.syntax import advice
from lbsvc.errors import Mistake

MAX_DEPTH: Final = 50
MAX_ALIASED: Final = 200_000  # nodes that aliases may add, all together
MAX_BYTES: Final = 16 * 1024 * 1024

#: Whose events are read; a test puts the pure one here.
PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CORE: Final = "tag:yaml.org,2002:"
# Control characters, lone surrogates, and the three line breaks that YAML 1.1 has and 1.2 and editors do not.
_UNWANTED: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_TAGGED: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


@dataclass(slots=True, eq=False)
class Scalar:
    """A single value. `text` is what stands there; `value` what it means by the core rules, text where quoted."""

    text: str
    value: Plain
    line: int = 0
    column: int = 0
    origin: tuple[str, ...] = ()  # the variables that it was made from: then it is never shown
    broken: bool = False  # already reported
    settled: bool = False  # its variables are in place: what they hold is not searched for more
    size: int = 1
    height: int = 0


@dataclass(slots=True, eq=False)
class Entry:
    """A key with its value, or an item of a list (key ""). The place is the key's, or the item's."""

    key: str
    value: Node
    line: int = 0
    column: int = 0
    option: str = ""  # the option of the command line that it comes from, named instead of a place


@dataclass(slots=True, eq=False)
class Items:
    items: list[Entry] = field(default_factory=list)
    line: int = 0
    column: int = 0
    size: int = 1
    height: int = 0


@dataclass(slots=True, eq=False)
class Mapping:
    entries: dict[str, Entry] = field(default_factory=dict)
    line: int = 0
    column: int = 0
    size: int = 1
    height: int = 0


Node: TypeAlias = Scalar | Items | Mapping


class TextError(Exception):
    """No tree can be had: the text ends being read here. The mistakes are with the composer."""


def spell(path: str, key: str) -> str:
    """The path of `key` below `path`; a key that would confuse there is put in quotes."""
    if len(key) > 80:
        key = key[:77] + "..."
    if not key or not key.isprintable() or re.search(r"[\s.\"\[\]]", key):
        key = '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in key) + '"'
    return f"{path}.{key}" if path else key


def read_document(source: str | bytes, filename: str) -> tuple[Node, list[Mistake]]:
    """The tree of `source`, and the mistakes that were found; with mistakes the tree may have holes.

    An empty text is a null scalar at 1:1, and so is one that cannot be read at all.
    """
    composer = _Composer(filename)
    try:
        return composer.document(source), composer.mistakes
    except TextError:
        return Scalar("", None, 1, 1, broken=True), composer.mistakes


class _Composer:
    def __init__(self, filename: str) -> None:
        self.mistakes: list[Mistake] = []
        self._filename = filename
        self._lines: Sequence[str] = ()
        self._anchors: dict[str, Node | None] = {}  # None: still open
        self._aliased = 0
        self._parser: Any = None

    def document(self, source: str | bytes) -> Node:
        text = self._decoded(source)
        self._parser = PARSER(text)
        try:
            self._next()  # the stream begins
            event = self._next()
            if isinstance(event, yaml.StreamEndEvent):
                return Scalar("", None, 1, 1)
            root = self._node(self._next(), 0, "")
            self._next()  # the document ends
            event = self._next()
            if not isinstance(event, yaml.StreamEndEvent):
                line, column = _place(event)
                self._wrong(line, column, "", "a second document begins here; a configuration is one document")
            return root
        finally:
            self._parser.dispose()

    def _decoded(self, source: str | bytes) -> str:
        if len(source) > MAX_BYTES:
            self._stop(1, 1, "the configuration is larger than 16 MiB")
        if isinstance(source, bytes):
            encoding = "utf-8"
            if source.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                encoding = "utf-16"
            try:
                text = source.decode(encoding)
            except UnicodeDecodeError as error:
                before = source[: error.start].decode(encoding, "replace")
                self._stop(*_end_of(before), "this is not UTF-8 text")
        else:
            text = source
        text = text.removeprefix("\ufeff")
        found = _UNWANTED.search(text)
        if found:
            what = f"the character U+{ord(found[0]):04X} cannot stand here"
            if ord(found[0]) < 0xD800:
                what += f'; in double quotes it can be written as "\\u{ord(found[0]):04x}"'
            self._stop(*_end_of(text[: found.start()]), what)
        self._lines = text.splitlines()
        return text

    def _wrong(self, line: int, column: int, key: str, message: str) -> None:
        self.mistakes.append(Mistake(self._filename, line, column, key, message))

    def _stop(self, line: int, column: int, message: str) -> NoReturn:
        self._wrong(line, column, "", message)
        raise TextError

    def _next(self) -> Any:
        try:
            return self._parser.get_event()
        except yaml.MarkedYAMLError as error:
            self._stop(*advice(error, self._lines))
        except (yaml.YAMLError, ValueError, OverflowError):
            # What the pure parser raises for escapes beyond Unicode; it has no place.
            self._stop(1, 1, "not valid YAML: an escape in double quotes names no character")

    def _node(self, event: Any, depth: int, path: str) -> Node:
        line, column = _place(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor or "", line, column, depth, path)
        if depth > MAX_DEPTH:
            self._stop(line, column, f"nested too deeply: at most {MAX_DEPTH} levels")
        if event.anchor:
            self._anchors[event.anchor] = None
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, line, column, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event.tag, "seq", line, column, path)
            node = self._list(line, column, depth, path)
        else:
            self._check_tag(event.tag, "map", line, column, path)
            node = self._mapping(line, column, depth, path)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, name: str, line: int, column: int, depth: int, path: str) -> Node:
        node = self._anchors.get(name)
        if node is None:
            if name in self._anchors:
                what = f"*{name} stands inside what it refers to"
            else:
                what = f"no anchor &{name} comes before this; if this is text that begins with *, quote it"
            self._wrong(line, column, path, what)
            return Scalar("", None, line, column, broken=True)
        self._aliased += node.size
        if self._aliased > MAX_ALIASED:
            self._stop(line, column, f"aliases repeat more than {MAX_ALIASED} values")
        if depth + node.height > MAX_DEPTH:
            self._stop(line, column, f"nested too deeply: at most {MAX_DEPTH} levels")
        return node

    def _scalar(self, event: Any, line: int, column: int, path: str) -> Scalar:
        text: str = event.value
        tag: str | None = event.tag
        value: Plain = text
        if not text.isascii() and re.search("[\ud800-\udfff]", text):
            self._wrong(line, column, path, "an escape in double quotes names no character")
            return Scalar("", None, line, column, broken=True)
        if tag is None:
            if event.implicit[0]:
                value = resolve(text)
        elif tag not in ("!", _CORE + "str"):
            kind = tag.removeprefix(_CORE)
            if kind not in _TAGGED or not tag.startswith(_CORE):
                self._check_tag(tag, "str", line, column, path)
                return Scalar("", None, line, column, broken=True)
            value = resolve(text)
            fits = isinstance(value, _TAGGED[kind]) and (kind == "bool" or not isinstance(value, bool))
            if not fits:
                self._wrong(line, column, path, f"the tag !!{kind} does not fit what follows it")
                return Scalar("", None, line, column, broken=True)
        return Scalar(text, value, line, column)

    def _check_tag(self, tag: str | None, kind: str, line: int, column: int, path: str) -> None:
        if tag not in (None, "!", _CORE + kind):
            shown = spell("", str(tag).replace(_CORE, "!!")).strip('"')
            self._wrong(
                line, column, path, f"the tag {shown} is not known; if this is text that begins with !, quote it"
            )

    def _list(self, line: int, column: int, depth: int, path: str) -> Items:
        node = Items([], line, column)
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            at_line, at_column = _place(event)
            item = self._node(event, depth + 1, f"{path}[{len(node.items)}]")
            node.items.append(Entry("", item, at_line, at_column))
            _grow(node, item)
        return node

    def _mapping(self, line: int, column: int, depth: int, path: str) -> Mapping:
        node = Mapping({}, line, column)
        merged: list[Mapping] = []
        merges = False
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            at_line, at_column = _place(event)
            key = self._node(event, depth + 1, path)
            is_merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
            below = spell(path, key.text) if isinstance(key, Scalar) else path
            value = self._node(self._next(), depth + 1, below)
            if not isinstance(key, Scalar):
                self._wrong(at_line, at_column, path, "a key must be text; if {{…}} is meant as text, quote it")
            elif key.broken:
                continue
            elif is_merge:
                if merges:
                    self._wrong(
                        at_line, at_column, below, "is here twice; to merge several, write a list: <<: [*a, *b]"
                    )
                merges = True
                merged += self._merge_sources(value, at_line, at_column, below)
            elif key.text in node.entries:
                first = node.entries[key.text]
                self._wrong(at_line, at_column, below, f"is here twice (first in line {first.line})")
            else:
                node.entries[key.text] = Entry(key.text, value, at_line, at_column)
                _grow(node, value)
        for other in merged:  # what is written here wins over what is merged, and earlier ones over later ones
            for name, entry in other.entries.items():
                if name not in node.entries:
                    node.entries[name] = entry
                    _grow(node, entry.value)
        return node

    def _merge_sources(self, value: Node, line: int, column: int, path: str) -> list[Mapping]:
        found = [value] if not isinstance(value, Items) else [entry.value for entry in value.items]
        mappings = [node for node in found if isinstance(node, Mapping)]
        if len(mappings) < len(found) and not any(isinstance(n, Scalar) and n.broken for n in found):
            self._wrong(line, column, path, "merges mappings only: <<: *name, or a list of these")
        return mappings


def _grow(node: Items | Mapping, child: Node) -> None:
    node.size += child.size
    node.height = max(node.height, child.height + 1)


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _end_of(text: str) -> tuple[int, int]:
    """Line and column, 1-based, of what comes after `text`."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
