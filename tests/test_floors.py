"""Imports go down only: the floors of lbsvc/__init__.py, read from the source by its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import TestCase

import lbsvc

PACKAGE = Path(lbsvc.__file__).parent

FLOORS = {
    "errors": 0,
    "core": 1,
    "plugin": 2,
    "config": 2,
    "net": 3,
    "http": 4,
    "observe": 5,
    "admin": 5,
    "adminlistener": 6,
    "app": 6,
    "controlling": 6,
    "cutting": 6,
    "leaving": 6,
    "livepool": 6,
    "reaping": 6,
    "relistening": 6,
    "repooling": 6,
    "retiring": 6,
    "sending": 6,
    "serving": 6,
    "shedding": 6,
    "viewing": 6,
    "listening": 6,
    "logs": 6,
    "membership": 6,
    "pools": 6,
    "reloading": 6,
    "routing": 6,
    "signals": 6,
    "streamrouting": 6,
    "supervising": 6,
    "upgrading": 6,
    "traffic": 6,
    "watching": 6,
    "workers": 6,
    "workers.__main__": 7,
    "tap": 7,
    "ctl": 7,
}

#: Who may know a neighbour on the same floor, and never the other way round.
NEIGHBOURS = {
    ("admin", "observe"),
    ("app", "listening"),
    ("app", "pools"),
    ("app", "adminlistener"),
    ("app", "controlling"),
    ("app", "cutting"),
    ("app", "logs"),
    ("app", "reaping"),
    ("app", "viewing"),
    ("app", "reloading"),
    ("app", "supervising"),
    ("app", "watching"),
    ("controlling", "pools"),
    ("controlling", "reloading"),
    ("controlling", "sending"),
    ("app", "sending"),
    ("sending", "listening"),
    ("sending", "serving"),
    ("app", "shedding"),
    ("app", "signals"),
    ("config", "plugin"),
    ("leaving", "cutting"),
    ("leaving", "serving"),
    ("listening", "cutting"),
    ("listening", "leaving"),
    ("listening", "pools"),
    ("listening", "relistening"),
    ("listening", "serving"),
    ("livepool", "membership"),
    ("pools", "livepool"),
    ("pools", "repooling"),
    ("pools", "retiring"),
    ("retiring", "livepool"),
    ("relistening", "leaving"),
    ("relistening", "serving"),
    ("serving", "pools"),
    ("serving", "routing"),
    ("serving", "streamrouting"),
    ("app", "upgrading"),
    ("upgrading", "adminlistener"),
    ("upgrading", "listening"),
    ("upgrading", "reloading"),
    ("upgrading", "supervising"),
    ("viewing", "listening"),
    ("viewing", "logs"),
    ("viewing", "pools"),
    ("viewing", "reloading"),
    ("viewing", "workers"),
    ("app", "traffic"),
    ("app", "workers"),
    ("traffic", "cutting"),
    ("traffic", "listening"),
    ("traffic", "logs"),
    ("traffic", "pools"),
    ("traffic", "shedding"),
    ("workers", "listening"),
    ("workers", "logs"),
    ("workers", "pools"),
    ("workers", "reloading"),
    ("workers", "relistening"),
    ("workers", "shedding"),
    ("workers", "traffic"),
    ("workers.__main__", "tap"),
}

#: What core may not know: sockets, clocks and chance are given to it.
OUTSIDE_CORE = {"twisted", "time", "random", "socket", "select", "asyncio", "threading", "os", "datetime"}


class Import:
    """One import: its module, the names taken from it, and whether it is for types only."""

    def __init__(self, module: str, names: tuple[str, ...], line: int, typing_only: bool) -> None:
        self.module = module
        self.names = names
        self.line = line
        self.typing_only = typing_only

    @property
    def targets(self) -> list[str]:
        """Every dotted name that this import may mean."""
        return [self.module, *(f"{self.module}.{name}" for name in self.names)]


def for_types_only(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(source: str, package: tuple[str, ...] = ()) -> Iterator[Import]:
    """Every import in a module, also inside functions; relative ones made absolute against `package`."""

    def walk(node: ast.AST, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), node.lineno, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            yield Import(module, tuple(alias.name for alias in node.names), node.lineno, typing_only)
        elif isinstance(node, ast.If) and for_types_only(node.test):
            for child in node.body:
                yield from walk(child, True)
            for child in node.orelse:
                yield from walk(child, typing_only)
        else:
            for child in ast.iter_child_nodes(node):
                yield from walk(child, typing_only)

    yield from walk(ast.parse(source), False)


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package: `core.pool`, its file."""
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), file


def found_in(name: str, file: Path) -> list[Import]:
    package = ("lbsvc", *name.split(".")) if file.name == "__init__.py" else ("lbsvc", *name.split(".")[:-1])
    return list(imports(file.read_text(), tuple(part for part in package if part)))


class FloorTests(TestCase):
    def test_every_module_has_a_floor(self) -> None:
        """A new top-level part of the package must be given a floor here."""
        parts = {name.split(".")[0] for name, _ in modules()} - {""}
        self.assertLess({"errors", "core", "config"}, parts)
        self.assertEqual(parts - set(FLOORS), set())

    def test_imports_go_down(self) -> None:
        """No module imports from a floor above its own, nor from beside it but where that is agreed."""
        wrong = []
        for name, file in modules():
            part = name if name in FLOORS else name.split(".")[0]
            for found in found_in(name, file):
                if found.module.split(".")[0] != "lbsvc":
                    continue
                dotted = found.module.split(".")
                names = dotted[1:2] or [each for each in found.names if each in FLOORS]
                for target in names:
                    above = FLOORS[target] > FLOORS.get(part, -1)
                    beside = FLOORS[target] == FLOORS.get(part) and target != part and (part, target) not in NEIGHBOURS
                    if above or beside:
                        wrong.append(f"{file.relative_to(PACKAGE)}:{found.line} imports {target}")
        self.assertEqual(wrong, [])

    def test_only_tap_knows_the_reactor(self) -> None:
        """The global reactor is imported in tap.py, in a worker's program, and in the one module of lbctl that runs it."""
        wrong = [
            f"{file.relative_to(PACKAGE)}:{found.line}"
            for name, file in modules()
            if name not in ("tap", "ctl.turning", "workers.__main__")
            for found in found_in(name, file)
            if "twisted.internet.reactor" in found.targets and not found.typing_only
        ]
        self.assertEqual(wrong, [])

    def test_core_is_pure(self) -> None:
        """Core imports neither Twisted nor a socket, a clock or chance, but for types."""
        wrong = [
            f"{file.relative_to(PACKAGE)}:{found.line} imports {found.module}"
            for name, file in modules()
            if name.split(".")[0] in ("core", "errors")
            for found in found_in(name, file)
            if found.module.split(".")[0] in OUTSIDE_CORE and not found.typing_only
        ]
        self.assertEqual(wrong, [])

    def test_yaml_stays_at_the_door(self) -> None:
        """Only the configuration floor reads YAML."""
        wrong = [
            f"{file.relative_to(PACKAGE)}:{found.line}"
            for name, file in modules()
            if name.split(".")[0] != "config"
            for found in found_in(name, file)
            if found.module.split(".")[0] == "yaml"
        ]
        self.assertEqual(wrong, [])

    def test_the_check_sees(self) -> None:
        """The reader of imports finds relative ones, those in functions, and those for types only."""
        source = (
            "from __future__ import annotations\n"
            "if TYPE_CHECKING:\n    import random\nelse:\n    import time\n"
            "def f():\n    from ..net import relay\n    from twisted.internet import reactor\n"
        )
        seen = [(found.targets, found.typing_only) for found in imports(source, ("lbsvc", "core"))][1:]
        self.assertEqual(
            seen,
            [
                (["random"], True),
                (["time"], False),
                (["lbsvc.net", "lbsvc.net.relay"], False),
                (["twisted.internet", "twisted.internet.reactor"], False),
            ],
        )
