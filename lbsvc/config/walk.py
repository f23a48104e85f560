"""The walk over a tree of nodes: places, paths, and every mistake at once.

A `Spot` is a node at a place in the tree; a reader is a function of a Spot that gives a value, or reports what is
wrong with `spot.refuse` and raises `Refused`. Whoever reads many things (sections, lists, mappings by name) catches
`Refused` for each of them, so that one mistake hides no other. Built by loader.py, used by values.py and the key
tables (listeners.py, routes.py, pools.py, service.py).

Promises: no message shows what came out of a variable; it names the variable instead. The place is that of the key for
a wrong value, of the item in a list, of the mapping where a key is missing.

Decision: 2026-11, our own walk instead of pydantic. pydantic knows no places, and hides the errors of a section behind
an unknown key in it; contract.md wants both, and notes fit neither of its models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, NoReturn, TypeAlias, TypeVar

from lbsvc.config import document
from lbsvc.config.document import Entry, Items, Node, Scalar, spell
from lbsvc.config.hints import meant, meant_key, quoted
from lbsvc.config.scalars import Plain, VariableError, expand, resolve
from lbsvc.config.schema import Bind, PoolSettings
from lbsvc.config.shapes import list_of, shaped
from lbsvc.errors import Mistake

T = TypeVar("T")
Reader: TypeAlias = Callable[["Spot"], Any]

#: After so many mistakes none says what was probably meant: to compare words costs more than all the rest.
_HINTED: Final = 50
#: What a name may be, as far as JSON Schema goes: see `name_fault`.
_NAMES: Final = {"propertyNames": {"minLength": 1, "maxLength": 128, "not": {"pattern": r"^\s|\s$|\$\{"}}}


class Refused(Exception):
    """A value that cannot be had; the mistake has been reported already."""


@dataclass(frozen=True)
class PoolUse:
    """A place where a pool is named: as the value there, or (`split`) as its key."""

    spot: Spot
    pool: str
    protocol: str = "http"  # of the listener
    is_key: bool = False
    listener: str = ""
    is_copy: bool = False  # its answers go to nobody (`mirror`)


@dataclass(frozen=True)
class RequestKey:
    """A key of a pool that looks at requests, of which a tcp listener has none."""

    spot: Spot
    pool: str
    cookie: str | None = None  # which `sticky` sets; None: it is `hash_key`


@dataclass(frozen=True)
class ReadPool:
    """A pool that has been read, where it stands, and where each of its backends does."""

    spot: Spot
    settings: PoolSettings
    places: tuple[Spot, ...]  # of `settings.backends`, in their order


class Walk:
    """One reading of one configuration: what was found wrong, and what is to be said about it.

    `wall` is the time of day in Unix seconds, by which certificates expire. Without `reads_files` no file that is named is
    looked at: who asks what is wrong with a text from elsewhere must not learn by it which files there are.
    """

    def __init__(
        self, filename: str, env: Mapping[str, str] | None, wall: Callable[[], float], *, reads_files: bool = True
    ) -> None:
        self.filename = filename
        self.env = env
        self.wall = wall
        self.reads_files = reads_files
        self.mistakes: list[Mistake] = []
        self.notes: list[str] = []
        # What checks.py compares once all is read.
        self.binds: list[tuple[Spot, Bind]] = []
        self.pool_uses: list[PoolUse] = []
        self.pool_names: list[str] = []  # also of pools that could not be read; the last one is being read
        self.request_keys: list[RequestKey] = []
        self.places: list[Spot] = []  # of the backends of the pool that is being read
        self.pools: list[ReadPool] = []

    @property
    def has_hints(self) -> bool:
        """May the next mistake say what was probably meant?"""
        return len(self.mistakes) < _HINTED

    def users(self) -> dict[str, set[str]]:
        """The protocols of the listeners that use each pool, by its name; a pool that nobody uses is not there."""
        found: dict[str, set[str]] = {}
        for use in self.pool_uses:
            found.setdefault(use.pool, set()).add(use.protocol)
        return found

    def note(self, path: str, message: str) -> None:
        self.notes.append(f"{self.filename}: {path}: {message}")

    def settled(self, node: Node, spot: Spot) -> Node:
        """The node with its variables in place (an unset one is a mistake at `spot`)."""
        if not isinstance(node, Scalar):
            return node
        if node.broken:
            raise Refused
        if self.env is None or node.settled or "${" not in node.text:
            return node
        try:
            text, names, whole = expand(node.text, self.env)
        except VariableError as error:
            spot.refuse(str(error))
        value: Plain = text
        if whole:  # what a variable holds is read again, as if it stood there
            text = text.strip()
            value = resolve(text)
            if text[:1] in ("'", '"'):
                inner, mistakes = document.read_document(text, "")
                if isinstance(inner, Scalar) and not mistakes:
                    text, value = inner.text, inner.value
        return Scalar(text, value, node.line, node.column, names, settled=True)


class Spot:
    """A node, where it stands, and what its key is called from the root."""

    __slots__ = ("column", "line", "node", "option", "path", "walk")

    def __init__(self, walk: Walk, node: Node, path: str, line: int, column: int, option: str = "") -> None:
        self.walk = walk
        self.path = path
        self.line = line
        self.column = column
        self.option = option
        self.node = walk.settled(node, self)

    def below(self, entry: Entry, step: str) -> Spot:
        """The spot of an entry; `step` is its whole path."""
        return Spot(self.walk, entry.value, step, entry.line, entry.column, entry.option or self.option)

    # what stands here

    @property
    def value(self) -> Plain:
        """The scalar's value; None for a list or mapping, so look at `is_scalar` first where that matters."""
        return self.node.value if isinstance(self.node, Scalar) else None

    @property
    def is_scalar(self) -> bool:
        return isinstance(self.node, Scalar)

    @property
    def is_null(self) -> bool:
        return isinstance(self.node, Scalar) and self.node.value is None

    @property
    def is_off(self) -> bool:
        """`off` or `false`, which mean the same where a section can be off."""
        return self.value is False or self.value == "off"

    @property
    def is_hollow(self) -> bool:
        """An empty mapping or list, or a mapping of nothing but such."""
        return _is_hollow(self.node)

    @property
    def origin(self) -> tuple[str, ...]:
        return self.node.origin if isinstance(self.node, Scalar) else ()

    def text(self) -> str | None:
        """The text here, None where it is none. What came from a variable is text whatever it looks like."""
        if not isinstance(self.node, Scalar):
            return None
        if isinstance(self.node.value, str) or self.node.origin:
            return self.node.text
        return None

    # what to say about it

    def got(self, known: Iterable[str] = (), hint: str = "") -> str:
        """What stands here, for a message: " (got -3)", or " (from ${W})" for what no message may show.

        With a `hint`, also that; else, with `known` words, which of them was probably meant.
        """
        node = self.node
        if isinstance(node, Items):
            return " (got a list)"
        if not isinstance(node, Scalar):
            return " (got a mapping)"
        if node.origin:
            return f" (from {', '.join(f'${{{name}}}' for name in node.origin)})"
        if isinstance(node.value, str):
            hint = hint or (meant(node.text, known) if self.walk.has_hints else "")
            if self.walk.env is None and not self.option and "${" in node.text:
                hint = "variables are not expanded here"
            return f" (got {quoted(node.text)}{'; ' + hint if hint else ''})"
        plain = quoted(node.text)[1:-1] if node.text and node.value is not None else "null"
        return f" (got {plain}{'; ' + hint if hint else ''})"

    def wrong(self, message: str) -> None:
        walk = self.walk
        if self.option:
            walk.mistakes.append(Mistake(self.option, 0, 0, "", message))
        else:
            walk.mistakes.append(Mistake(walk.filename, self.line, self.column, self.path, message))

    def refuse(self, message: str) -> NoReturn:
        self.wrong(message)
        raise Refused

    def expect(self, rule: str) -> NoReturn:
        """Refuse what stands here: "must be …" and what it is instead."""
        self.refuse(f"must be {rule}{self.got()}")

    def missing(self, key: str, message: str = "is required") -> None:
        """A key that is not here: the place is the mapping's."""
        node = self.node
        line, column = (node.line, node.column) if not self.is_scalar else (self.line, self.column)
        if self.option:
            self.wrong(message)
            return
        path = spell(self.path, key) if key else self.path
        self.walk.mistakes.append(Mistake(self.walk.filename, line, column, path, message))

    # what is below

    def at(self, key: str) -> Spot:
        """The spot of a key that is here."""
        return self.below(self.entries()[key], spell(self.path, key))

    def entries(self, rule: str = "a mapping") -> dict[str, Entry]:
        """The entries of the mapping here; nothing at all counts as an empty one."""
        if self.is_null:
            return {}
        if not isinstance(self.node, document.Mapping):
            self.expect(rule)
        return self.node.entries

    def items(self, *, single: bool = False) -> Iterator[tuple[Entry, str]]:
        """The items of the list here, each with its path; with `single`, a scalar is a list of itself."""
        if single and isinstance(self.node, Scalar) and self.node.value is not None:
            return iter([(Entry("", self.node, self.line, self.column), self.path)])
        if not isinstance(self.node, Items):
            self.expect("a list")
        return ((entry, f"{self.path}[{i}]") for i, entry in enumerate(self.node.items))


def _is_hollow(node: Node) -> bool:
    if isinstance(node, Items):
        return not node.items
    if isinstance(node, document.Mapping):
        return all(_is_hollow(entry.value) for entry in node.entries.values())
    return node.value is None


@dataclass(frozen=True)
class Section(Generic[T]):
    """A reader of a mapping whose keys are names of settings.

    `keys` tells how each is read. `make` gets the spot and the values that were found (a key that was wrong or left out is
    not among them). `off` is what off and false mean here; `short` reads a scalar.
    """

    keys: Mapping[str, Reader]
    make: Callable[[Spot, dict[str, Any]], T]
    required: tuple[str, ...] = ()
    off: tuple[T] | None = None
    short: Callable[[Spot], T] | None = None

    def __call__(self, spot: Spot) -> T:
        if self.off is not None and spot.is_off:
            return self.off[0]
        if self.short is not None and spot.is_scalar and not spot.is_null:
            return self.short(spot)
        entries = spot.entries("a mapping" if self.off is None else "a mapping, or off")
        found: dict[str, Any] = {}
        for key, entry in entries.items():
            reader = self.keys.get(key)
            path = spell(spot.path, key)
            if reader is None:
                if not key.startswith("x-"):
                    unknown = Spot(spot.walk, Scalar("", None), path, entry.line, entry.column, entry.option)
                    hint = meant_key(key, self.keys) if spot.walk.has_hints else ""
                    unknown.wrong(f"unknown key ({hint})" if hint else "unknown key")
                continue
            try:
                value = reader(spot.below(entry, path))
            except Refused:
                continue
            found[key] = value
        for key in self.required:
            if key not in entries:
                spot.missing(key)
        if any(key not in found for key in self.required):
            raise Refused
        return self.make(spot, found)


def plain(cls: Callable[..., T]) -> Callable[[Spot, dict[str, Any]], T]:
    """For `Section.make`: the keys are the fields of `cls`."""
    return lambda spot, found: cls(**found)


def named(reader: Callable[[Spot, str], T], *, checked: bool = True) -> Callable[[Spot], dict[str, T]]:
    """A reader of a mapping whose keys are names that people chose; unless `checked` is false, they are checked."""

    @shaped(
        lambda of: {"type": ["object", "null"], "additionalProperties": of(reader, "N")} | (_NAMES if checked else {})
    )
    def read(spot: Spot) -> dict[str, T]:
        found: dict[str, T] = {}
        for key, entry in spot.entries().items():
            path = spell(spot.path, key)
            try:
                child = spot.below(entry, path)
                fault = name_fault(key) if checked else ""
                if fault:
                    child.wrong(f"the name must be {fault}")
                found[key] = reader(child, key)
            except Refused:
                continue
        return found

    return read


def listing(reader: Callable[[Spot], T], *, single: bool = False) -> Callable[[Spot], tuple[T, ...]]:
    """A reader of a list; with `single`, one scalar stands for a list of it."""

    @shaped(list_of(reader, single=single))
    def read(spot: Spot) -> tuple[T, ...]:
        found: list[T] = []
        for entry, path in spot.items(single=single):
            try:
                found.append(reader(spot.below(entry, path)))
            except Refused:
                continue
        return tuple(found)

    return read


def name_fault(name: str) -> str:
    """What is wrong with a name, or ""."""
    if not name or not name.isprintable() or name != name.strip():
        return "visible text"
    if len(name) > 128:
        return "at most 128 characters long"
    return "written out: variables are not expanded in names" if "${" in name else ""
