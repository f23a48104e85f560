"""What a piece of YAML text means: the YAML 1.2 core rules, and `${NAME}` variables.

Promises: `resolve` never raises and gives None, bool, int, float or str; only true and false are booleans, `10:30`
is text and `010` is ten. `expand` never tells a variable's value in what it raises. Called by document.py and walk.py;
pure functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, TypeAlias

Plain: TypeAlias = bool | int | float | str | None

_WORDS: Final[dict[str, bool | float | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((p + w for p in ("", "+") for w in (".inf", ".Inf", ".INF")), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INT: Final = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_VARIABLE: Final = re.compile(
    r"(?P<escape>\$\$\{)|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<rest>:-(?P<default>(?:[^}$]|\$(?!\{))*))?\}|(?P<bad>))"
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

#: Stands for every int of more digits than any setting could take: Python refuses to convert very long ones.
ENORMOUS: Final = 10**100


def resolve(text: str) -> Plain:
    """The value of a plain (unquoted) scalar by the core rules of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if not text[0].isascii() or text[0] not in "0123456789+-.":
        return text
    if _INT.fullmatch(text):
        if len(text) > 100:
            return -ENORMOUS if text[0] == "-" else ENORMOUS
        return int(text)
    if _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
        return int(text, 0) if len(text) < 80 else ENORMOUS
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class VariableError(ValueError):
    """A `${…}` that has no value; says which, never what another one holds."""


def expand(text: str, env: Mapping[str, str]) -> tuple[str, tuple[str, ...], bool]:
    """`text` with its variables in place, the names of these, and whether the whole text was one variable.

    As in a shell, `${NAME:-default}` takes the default also where NAME is set but empty.
    """
    names: list[str] = []
    faults: list[str] = []

    def put(match: re.Match[str]) -> str:
        if match["escape"]:
            return "${"
        name = match["name"]
        if name is None:
            faults.append("${ begins no variable here: write ${NAME} or ${NAME:-default}, and $${ for ${ itself")
            return ""
        names.append(name)
        value = env.get(name)
        if value is not None and not value.isascii() and _SURROGATE.search(value):
            faults.append(f"${{{name}}} is not UTF-8 text")
            return ""
        if match["rest"] is not None:
            return value or match["default"]
        if value is None:
            faults.append(f"${{{name}}} is not set and has no default")
            return ""
        return value

    expanded = _VARIABLE.sub(put, text)
    if faults:
        raise VariableError(faults[0])
    whole = _VARIABLE.fullmatch(text)
    return expanded, tuple(dict.fromkeys(names)), whole is not None and not whole["escape"]
