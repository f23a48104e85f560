"""What to say about text that is not YAML: where it is wrong (1-based), and how it is mended.

Promises: the advice fits libyaml's errors and those of PyYAML's own parser alike, says "quote" wherever quoting would
mend it, and shows at most one character of the text, for the rest may be secret. Called by document.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import yaml


def advice(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> tuple[int, int, str]:
    """Line, column and message for a syntax error in the text that has these `lines`."""
    problem = error.problem or "it makes no sense here"
    where = error.context or ""
    mark = error.problem_mark or error.context_mark
    began = error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    char = _char(lines, line, column)
    before = _char(lines, line, column - 1)
    message = f"not valid YAML: {problem}"
    if ("alias" in where or "anchor" in where) and began is not None:
        line, column = began.line, began.column
        char = _char(lines, line, column) or "*"
        message = f"a value that begins with {char} must be in quotes: quote it"
    elif "escape" in problem or "hexdecimal" in problem:
        message = "in double quotes a backslash begins an escape: use single quotes, or write \\\\"
    elif "cannot start any token" in problem:
        if char == "\t":
            message = "a tab cannot indent: use spaces"
        else:
            message = f"a value that begins with {char or 'this'} must be in quotes: quote it"
    elif "node content" in problem:
        if char in ("]", "}", ""):
            message = "a value is missing here; if this is text, quote it"
        else:
            message = f"a value cannot begin with {char} here: quote it"
    elif where in ("while parsing a flow mapping", "while parsing a flow sequence"):
        opened = "{" if "mapping" in where else "["
        if char in ("{", "[") and before == "$":
            message = "inside { } and [ ] a ${…} must be in quotes: quote it"
        elif char in ("{", "["):
            message = f"text that contains {char} must be in quotes inside {{ }} and [ ]: quote it"
        else:
            message = f"expected a comma or the end of what {opened} begins{_line_of(began)}"
    elif "mapping values are not allowed" in problem:
        message = 'a colon makes no key here: quote the value if it contains ": ", or mend the indentation'
    elif "entries are not allowed" in problem or "mapping keys are not allowed" in problem:
        message = f"{char or 'this'} cannot begin a value here: quote it, or begin a new line"
    elif "block scalar" in where:
        if began is not None:
            line, column = began.line, began.column
        message = f"{_char(lines, line, column) or 'this'} begins a block of text: quote it if that is not meant"
    elif "unexpected end of stream" in problem and began is not None:
        line, column = began.line, began.column
        message = "this quote is never closed"
    elif "expected key" in problem or "block end" in problem or "'-' indicator" in problem:
        message = "this fits neither the value before it nor the indentation: quote the whole value, or mend it"
    elif "could not find expected ':'" in problem:
        message = "a key without a colon; mend the indentation, or quote the value above"
    elif "tag" in where:
        message = "the tag is not valid; if this is text that begins with !, quote it"
    return line + 1, column + 1, message


def _char(lines: Sequence[str], line: int, column: int) -> str:
    """The character at a place, or "" where there is none (the end, or before the beginning)."""
    if 0 <= line < len(lines) and 0 <= column < len(lines[line]):
        return lines[line][column]
    return ""


def _line_of(mark: yaml.Mark | None) -> str:
    return f" (line {mark.line + 1})" if mark is not None else ""
