"""What a reader takes, said in JSON Schema beside the reader itself: so that a schema for editors cannot drift from it.

Promises: `shaped` changes nothing about a reader but that `shape_of` tells its shape: a fragment of JSON Schema, or a
function that makes one and gets `of`, by which it asks for the shapes of other readers (and steps into lists and mappings:
"[]", "N"). A shape takes whatever the reader takes, and refuses of the rest what can be said in a schema; `${…}` fits every
scalar, for nobody knows what it will hold. Used by every module that has readers; jsonschema.py puts the shapes together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias, TypeVar

Fragment: TypeAlias = Mapping[str, Any]


class Of(Protocol):
    """Gives the shape of another reader, one step further down where there is one."""

    def __call__(self, reader: Any, step: str = "") -> dict[str, Any]:
        """The shape of a reader."""


Shape: TypeAlias = Fragment | Callable[[Of], Fragment]
R = TypeVar("R", bound=Callable[..., Any])

_HAS_VARIABLE: Final = r"\$\{"
#: A text that holds a variable: what it will be is not known before it is read.
VARIABLE: Final[Fragment] = {"$ref": "#/$defs/variable"}
OFF: Final[Fragment] = {"enum": ["off", False]}
NULL: Final[Fragment] = {"type": "null"}
TEXT: Final[Fragment] = {"type": "string"}
SOME_TEXT: Final[Fragment] = {"type": "string", "minLength": 1}
#: What "#/$defs/…" leads to.
DEFINITIONS: Final[dict[str, Fragment]] = {
    "variable": {
        "type": "string",
        "pattern": _HAS_VARIABLE,
        "description": "${NAME} or ${NAME:-default}, from the environment",
    }
}


def shaped(shape: Shape) -> Callable[[R], R]:
    """Say what a reader takes."""

    def mark(reader: R) -> R:
        vars(reader)["shape"] = shape
        return reader

    return mark


def shape_of(reader: Any) -> Shape | None:
    """What was said of a reader."""
    found: Shape | None = getattr(reader, "shape", None)
    return found


def either(*shapes: Fragment) -> dict[str, Any]:
    """One of several; those that offer a choice themselves are spread out."""
    flat: list[Fragment] = []
    for shape in shapes:
        flat += shape["anyOf"] if set(shape) == {"anyOf"} else [shape]
    unique = [each for i, each in enumerate(flat) if each not in flat[:i]]
    return {"anyOf": unique} if len(unique) > 1 else dict(unique[0])


def one_of(*values: Any) -> dict[str, Any]:
    """One of these values."""
    return either({"enum": list(values)}, VARIABLE)


def fitting(pattern: re.Pattern[str], **more: Any) -> dict[str, Any]:
    """Text that a pattern fits as a whole."""
    return {"type": "string", "pattern": f"^(?:{pattern.pattern})$|{_HAS_VARIABLE}", **more}


def whole(low: int, high: int) -> dict[str, Any]:
    """A whole number from low to high."""
    return either({"type": "integer", "minimum": low, "maximum": high}, VARIABLE)


def like(reader: Any) -> Callable[[Of], Fragment]:
    """The shape of another reader."""
    return lambda of: of(reader)


def or_none(reader: Any, *others: Fragment) -> Callable[[Of], Fragment]:
    """The shape of another reader, or null, or one of `others`."""
    return lambda of: either(of(reader), NULL, *others)


def list_of(reader: Any, *, single: bool = False) -> Callable[[Of], Fragment]:
    """A list of what another reader takes; with `single`, one alone will do."""

    def shape(of: Of) -> Fragment:
        item = of(reader, "[]")
        alone = [each for each in item.get("anyOf", [item]) if each.get("type") != "object"] if single else []
        return either({"type": "array", "items": item}, *alone)

    return shape
