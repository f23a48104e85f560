"""Every row of features.md has a test that names it, or a reason why there is none: read from the docstrings of all tests.

A row is named in parentheses, alone or with others: "(ALG-1)", "(ALG-1, TST-1)". See tests/rows.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from twisted.trial.unittest import TestCase

import lbsvc
from tests import rows, rows_operating

TESTS = Path(lbsvc.__file__).resolve().parent.parent / "tests"

ROWS = (*rows.ROWS, *rows_operating.ROWS)
EXCEPTIONS = {**rows.EXCEPTIONS, **rows_operating.EXCEPTIONS}

#: ALG, L4 and so on; the faults of the smaller balancers are A1, L1, S1 and V1 instead.
_FAMILIES = "|".join(sorted({row.partition("-")[0] for row in ROWS if "-" in row}))
_ROW = rf"(?:(?:{_FAMILIES})-\d+|[ALSV]\d{{1,2}})"
_NAMED = re.compile(rf"\(({_ROW}(?:, {_ROW})*)\)")
#: Anywhere else, where it cannot be anything else.
_MENTIONED = re.compile(rf"\b(?:{_FAMILIES})-\d+\b")


def named(docstring: str) -> list[str]:
    """The rows that a docstring names, in parentheses."""
    return [row for found in _NAMED.findall(" ".join(docstring.split())) for row in found.split(", ")]


def docstrings() -> Iterator[tuple[str, str]]:
    """Each test's place and docstring."""
    for file in sorted(TESTS.rglob("test_*.py")):
        if file == Path(__file__).resolve():
            continue  # what is in parentheses here are examples
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield f"{file.relative_to(TESTS.parent)}:{node.lineno} {node.name}", ast.get_docstring(node) or ""


def mistakes(ids: Iterable[str], exceptions: Mapping[str, str], tests: Iterable[tuple[str, str]]) -> list[str]:
    """What is wrong with these rows, exceptions and docstrings, in words."""
    ids = list(ids)
    wrong = [f"{row} is listed twice" for row in dict.fromkeys(ids) if ids.count(row) > 1]
    shown: dict[str, str] = {}
    for place, docstring in tests:
        mentioned = dict.fromkeys([*named(docstring), *_MENTIONED.findall(docstring)])
        wrong += [f"{place}: there is no row {row}" for row in mentioned if row not in ids]
        for row in named(docstring):
            shown.setdefault(row, place)
    for row in ids:
        if row not in shown and row not in exceptions:
            wrong.append(f"{row}: no test names it")
        elif row in shown and row in exceptions:
            wrong.append(f"{row} is an exception, and shown by {shown[row]}")
    for row, reason in exceptions.items():
        if row not in ids:
            wrong.append(f"{row} is an exception, and no row")
        if len(reason.split()) < 4:
            wrong.append(f"{row} is an exception without a reason")
    return wrong


class RowTests(TestCase):
    def test_every_row(self) -> None:
        """Each row is named by a test or excused with a reason, not both, and no test names a row that does not exist."""
        tests = list(docstrings())
        self.assertGreater(len(tests), 2000)
        self.assertEqual(mistakes(ROWS, EXCEPTIONS, tests), [])

    def test_reading(self) -> None:
        """Rows are found in parentheses only, one or more of them, over the end of a line too, and nothing else is."""
        for docstring, found in {
            "Three failures turn it down (HC-5).": ["HC-5"],
            "All of it (ALG-1, L4-2,\n        A16), and more (V20).": ["ALG-1", "L4-2", "A16", "V20"],
            "HC-5: a part of it.": [],
            "As it is (RFC 9112, 9.6), in TLS 1.3 (UTF-8), by HTTP/2 (H2), for 32 bytes (8 KiB).": [],
            "With words (see HC-5) beside it.": [],
        }.items():
            self.assertEqual(named(docstring), found, docstring)

    def test_what_is_a_mistake(self) -> None:
        """A row without a test, one that nobody knows, one that is listed twice, and exceptions that are none."""
        tests = [("a.py:1 test_a", "So it is (HC-1, HC-99)."), ("b.py:2 test_b", "HC-98: a part.")]
        reasons = {"HC-1": "no machine here has it", "HC-4": "later", "HC-5": "not a row at all"}
        self.assertEqual(
            mistakes(["HC-1", "HC-2", "HC-3", "HC-3", "HC-4"], reasons, tests),
            [
                "HC-3 is listed twice",
                "a.py:1 test_a: there is no row HC-99",
                "b.py:2 test_b: there is no row HC-98",
                "HC-1 is an exception, and shown by a.py:1 test_a",
                "HC-2: no test names it",
                "HC-3: no test names it",
                "HC-3: no test names it",
                "HC-4 is an exception without a reason",
                "HC-5 is an exception, and no row",
            ],
        )
        self.assertEqual(mistakes(["HC-1"], {}, [("c.py:3 test_c", "It is up (HC-1).")]), [])
