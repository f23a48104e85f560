"""Rules of the house that no linter knows: sizes, words, docstrings, tests that run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import TestCase

import lbsvc

ROOT = Path(lbsvc.__file__).resolve().parent.parent

#: A module of this many lines or more has two jobs.
TOO_LONG = 400

FORBIDDEN = {
    *("handler", "manager", "engine", "processor", "helper", "util", "common", "misc", "base", "context"),
    *("data", "info"),
}


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def words(name: str) -> list[str]:
    """`HTTPCheckUtils` -> http, check, util: the words of a name, lower-case, without a plural s."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return [part.lower() for part in parts] + [part.lower().rstrip("s") for part in parts]


def named(file: Path) -> Iterator[str]:
    """The module's own name and those of its classes."""
    yield file.stem
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef):
            yield node.name


def methods_of_tests() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for file in sources("tests"):
        if file.name.startswith("test_"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                    yield file, node


class StyleTests(TestCase):
    def test_size(self) -> None:
        """No module, of the package or of the tests, reaches 400 lines."""
        long = {
            str(file.relative_to(ROOT)): count
            for file in sources("lbsvc", "tests", "twisted")
            if (count := len(file.read_text().splitlines())) >= TOO_LONG
        }
        self.assertEqual(long, {})

    def test_names(self) -> None:
        """No module or class is named by a word that says nothing."""
        wrong = [
            f"{file.relative_to(ROOT)}: {name}"
            for file in sources("lbsvc")
            for name in named(file)
            if FORBIDDEN.intersection(words(name))
        ]
        self.assertEqual(wrong, [])

    def test_words(self) -> None:
        """The check of names knows camel case, capitals, plurals and underscores."""
        for name in ("ConnectionManager", "http_utils", "HTTPContext", "BaseRoad", "InfoLine"):
            self.assertTrue(FORBIDDEN.intersection(words(name)), name)
        for name in ("BuildInformation", "Database", "Basement", "relay", "Contextual"):
            self.assertFalse(FORBIDDEN.intersection(words(name)), name)

    def test_modules_say_what_they_promise(self) -> None:
        """Every module begins with a docstring."""
        silent = [
            str(file.relative_to(ROOT))
            for file in sources("lbsvc", "tests", "twisted")
            if ast.get_docstring(ast.parse(file.read_text())) is None
        ]
        self.assertEqual(silent, [])

    def test_tests_say_what_they_show(self) -> None:
        """Every test has a docstring that says what it shows."""
        silent = [
            f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
            for file, node in methods_of_tests()
            if ast.get_docstring(node) is None
        ]
        self.assertEqual(silent, [])

    def test_no_skips(self) -> None:
        """No test is skipped or expected to fail: neither by attribute, decorator nor exception."""
        marks = re.compile(r"SkipTest|\bskip(?:If|Unless)?\b\s*[=(]|\btodo\s*=|expectedFailure")
        wrong = [
            f"{file.relative_to(ROOT)}:{number}"
            for file in sources("tests")
            if file != Path(__file__).resolve()
            for number, line in enumerate(file.read_text().splitlines(), 1)
            if marks.search(line)
        ]
        self.assertEqual(wrong, [])

    def test_no_init_in_the_plugin_folders(self) -> None:
        """An __init__.py in twisted/ or twisted/plugins/ would hide the plugin, or Twisted itself."""
        self.assertEqual([str(f.relative_to(ROOT)) for f in sources("twisted")], ["twisted/plugins/lbsvc_plugin.py"])
