"""Every row of features.md has a test that names it, or a reason why there is none: read from the docstrings of all tests.

A row is named in parentheses, alone or with others: "(ALG-1)", "(ALG-1, TST-1)". See tests/rows.py. Only a test that
asserts something counts: itself, or by a function of its file or of the tests' common ones that does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import TestCase

import lbsvc
from tests import rows, rows_operating

TESTS = Path(lbsvc.__file__).resolve().parent.parent / "tests"

ROWS = (*rows.ROWS, *rows_operating.ROWS)
EXCEPTIONS = {**rows.EXCEPTIONS, **rows_operating.EXCEPTIONS}

Function = ast.FunctionDef | ast.AsyncFunctionDef

#: What asserts by its name: trial's own (failUnless too), and the kit's waiting for something.
_ASSERTION = re.compile(r"assert(?:[A-Z_]|$)|fail(?:[A-Z_]|$)|until$|check(?:_|$)")

#: ALG, L4 and so on; the faults of the smaller balancers are A1, L1, S1 and V1 instead.
_FAMILIES = "|".join(sorted({row.partition("-")[0] for row in ROWS if "-" in row}))
_ROW = rf"(?:(?:{_FAMILIES})-\d+|[ALSV]\d{{1,2}})"
_NAMED = re.compile(rf"\(({_ROW}(?:, {_ROW})*)\)")
#: Anywhere else, where it cannot be anything else.
_MENTIONED = re.compile(rf"\b(?:{_FAMILIES})-\d+\b")


def named(docstring: str) -> list[str]:
    """The rows that a docstring names, in parentheses."""
    return [row for found in _NAMED.findall(" ".join(docstring.split())) for row in found.split(", ")]


def functions(tree: ast.AST) -> list[Function]:
    """All that are defined there, methods and inner ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def called(function: Function) -> set[str]:
    """The names of what it calls, or hands to others to be called (`self.each(self.one)`), without their owners."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            for each in (node.func, *node.args):
                if isinstance(each, ast.Attribute):
                    found.add(each.attr)
                elif isinstance(each, ast.Name):
                    found.add(each.id)
    return found


def asserts(function: Function, asserting: Collection[str]) -> bool:
    """Does it assert something, by itself or by one of these functions?"""
    names = called(function)
    return (
        any(isinstance(node, ast.Assert) for node in ast.walk(function))
        or any(_ASSERTION.match(name) for name in names)
        or not names.isdisjoint(asserting)
    )


def asserting_among(defined: Iterable[Function], known: Collection[str] = ()) -> set[str]:
    """The names of those that assert something, by each other or by those that are known to do so."""
    defined, found = list(defined), set(known)
    while new := {each.name for each in defined if each.name not in found and asserts(each, found)}:
        found |= new
    return found


def docstrings() -> Iterator[tuple[str, str, bool]]:
    """Each test's place and docstring, and whether it asserts anything."""
    shared = [file for file in TESTS.rglob("*.py") if not file.name.startswith("test_")]
    common = asserting_among(each for file in shared for each in functions(ast.parse(file.read_text())))
    for file in sorted(TESTS.rglob("test_*.py")):
        if file == Path(__file__).resolve():
            continue  # what is in parentheses here are examples
        defined = functions(ast.parse(file.read_text()))
        # What a file defines itself is what is meant there.
        asserting = asserting_among(defined, common - {each.name for each in defined})
        for node in defined:
            if node.name.startswith("test_"):
                place = f"{file.relative_to(TESTS.parent)}:{node.lineno} {node.name}"
                yield place, ast.get_docstring(node) or "", asserts(node, asserting)


def mistakes(ids: Iterable[str], exceptions: Mapping[str, str], tests: Iterable[tuple[str, str, bool]]) -> list[str]:
    """What is wrong with these rows, exceptions and tests, in words."""
    ids = list(ids)
    wrong = [f"{row} is listed twice" for row in dict.fromkeys(ids) if ids.count(row) > 1]
    shown: dict[str, str] = {}
    for place, docstring, is_asserting in tests:
        mentioned = dict.fromkeys([*named(docstring), *_MENTIONED.findall(docstring)])
        wrong += [f"{place}: there is no row {row}" for row in mentioned if row not in ids]
        for row in named(docstring):
            if is_asserting:
                shown.setdefault(row, place)
            else:
                wrong.append(f"{place}: names {row}, and asserts nothing")
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
        tests = [
            ("a.py:1 test_a", "So it is (HC-1, HC-99).", True),
            ("b.py:2 test_b", "HC-98: a part.", False),
            ("c.py:3 test_c", "It is said (HC-3).", False),
        ]
        reasons = {"HC-1": "no machine here has it", "HC-4": "later", "HC-5": "not a row at all"}
        self.assertEqual(
            mistakes(["HC-1", "HC-2", "HC-3", "HC-3", "HC-4"], reasons, tests),
            [
                "HC-3 is listed twice",
                "a.py:1 test_a: there is no row HC-99",
                "b.py:2 test_b: there is no row HC-98",
                "c.py:3 test_c: names HC-3, and asserts nothing",
                "HC-1 is an exception, and shown by a.py:1 test_a",
                "HC-2: no test names it",
                "HC-3: no test names it",
                "HC-3: no test names it",
                "HC-4 is an exception without a reason",
                "HC-5 is an exception, and no row",
            ],
        )
        self.assertEqual(mistakes(["HC-1"], {}, [("c.py:3 test_c", "It is up (HC-1).", True)]), [])

    def test_who_asserts(self) -> None:
        """A test asserts by itself or by what it calls, over however many corners; what is only run, or begun, does not."""
        defined = functions(
            ast.parse(
                dedent("""
                def test_plain(self): self.assertEqual(1, 1)
                def test_statement(self): assert 1
                def test_raising(self): self.fail("no")
                def test_waiting(self): until(lambda: True, "so")
                def test_corners(self): self.first()
                def first(self): second()
                def second(): assert 1
                def test_handed(self): self.at_once(2, self.first)
                def test_common(self): self.known()
                def test_circle(self): self.circle()
                def circle(self): self.circle()
                def test_run(self): self.run_it(); self.value.failures(); self.checked; self.failure()
                def test_nothing(self): "Says something."
                def run_it(self): return 1
                """)
            )
        )
        tests = {each.name for each in defined if each.name.startswith("test_")}
        found = tests & asserting_among(defined, {"known"})
        self.assertEqual(tests - found, {"test_circle", "test_run", "test_nothing"})
