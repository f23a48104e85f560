"""Looks through the modules that are compiled (hook.py) for what mypyc would do otherwise than Python does.

    python etc/compiled/audit.py [ROOT [FILE ...]]

Prints a line for each that it finds, and ends with 1 if there is any:

- code that mypy takes for unreachable: mypyc leaves it out. Mostly an attribute that was asked for before a call, and again
  behind it (`if self.is_lost: return; self.end(); if self.is_lost: ...`);
- an attribute that is one of several types, and used as the one that it was found to be, where a call in between may have
  changed that: a compiled module raises TypeError there. A method of its own is believed nothing about. Only uses are shown
  that Python itself does not mind (a comparison, an argument, a value); SOUND lists those that nothing can come between;
- an attribute that a class declares again after one that it inherits from: the collector of garbage would count it twice,
  and clear what lives on;
- a class that is not native (a decorator that mypyc does not know), and a default on a class that mypyc forgets (None, where
  the type is one of three or more, or a Protocol): set it in __init__.

Decision: 2026-11-22, by mypy's own trees, which change from version to version: the build pins mypy to one (pyproject.toml).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hook
from mypy.errors import CompileError
from mypy.fscache import FileSystemCache
from mypy.nodes import (
    AssignmentStmt,
    CallExpr,
    Expression,
    IndexExpr,
    MemberExpr,
    MypyFile,
    NameExpr,
    Node,
    TempNode,
    TypeInfo,
    Var,
)
from mypy.subtypes import is_same_type
from mypy.types import Instance, Type, UnionType, get_proper_type
from mypyc.build import get_mypy_config
from mypyc.codegen.emitmodule import compile_modules_to_ir, parse_and_typecheck
from mypyc.errors import Errors
from mypyc.ir.rtypes import RPrimitive
from mypyc.irbuild.mapper import Mapper
from mypyc.irbuild.util import default_attr_name
from mypyc.options import CompilerOptions

#: Attributes that never change once they are there, or are read at once behind the question.
SOUND = {
    "core/pool.py": {"ramped_from"},
    "http/cookies.py": {"_secure"},
    "http/exchange.py": {"abort", "deny", "limit", "timeout"},
    "http/forwarding.py": {"host"},
    "http/h2_client.py": {"max_requests"},
    "http/h2_receiving.py": {"left"},
    "http/h2_tunnel.py": {"_end"},
    "http/h2_upstream.py": {"_stream"},
    "http/hops.py": {"host"},
    "http/placing.py": {"addresses", "cookies"},
    "http/pooling.py": {"max_lifetime", "max_requests"},
    "http/trying.py": {"patience"},
}
#: Parts of mypy's nodes that lead out of the tree, or back up.
_ELSEWHERE = {
    "analyzed",
    "def_info",
    "definition",
    "defn",
    "func_def",
    "imports",
    "info",
    "names",
    "node",
    "target",
    "type",
}

#: Types of mypyc's own that the collector of garbage follows.
_COLLECTED = {f"builtins.{name}" for name in ("dict", "frozenset", "list", "object", "set", "tuple")}


def parts(node: Node) -> Iterator[Node]:
    """The nodes right below one."""
    for name in dir(type(node)):
        if not name.startswith("_") and name not in _ELSEWHERE:
            yield from _nodes(getattr(node, name, None))


def _nodes(value: Any) -> Iterator[Node]:
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _nodes(each)
    elif isinstance(value, Node) and not isinstance(value, (MypyFile, TypeInfo, Var)):
        yield value


def declared(owner: Type | None, name: str) -> Type | None:
    """What an attribute is declared as."""
    owner = get_proper_type(owner) if owner is not None else None
    found = owner.type.get(name) if isinstance(owner, Instance) else None
    if found is None or not isinstance(found.node, Var) or found.node.type is None:
        return None
    return get_proper_type(found.node.type)


def narrowed(tree: MypyFile, types: dict[Expression, Type]) -> Iterator[MemberExpr]:
    """Reads of attributes that are taken for less than they are declared as, in places where Python takes them all."""
    seen: set[int] = set()
    waiting: list[tuple[Node, Node]] = [(each, tree) for each in tree.defs]
    while waiting:
        node, above = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, MemberExpr) and node in types:
            whole = declared(types.get(node.expr), node.name)
            is_used = isinstance(above, MemberExpr) or (
                isinstance(above, (CallExpr, IndexExpr))
                and node in (getattr(above, "callee", 0), getattr(above, "base", 0))
            )
            if isinstance(whole, UnionType) and not is_used and not is_same_type(whole, types[node]):
                yield node
        waiting += [(each, node) for each in parts(node)]


def forgotten(classes: Mapper) -> Iterator[str]:
    """Classes, and defaults on them, that would not be what they are in Python."""
    for info, made in classes.type_to_ir.items():
        if not made.is_ext_class:
            if not info.is_enum and not info.is_named_tuple and info.tuple_type is None:
                yield f"{info.fullname}: not native"
            continue
        above = {name for each in made.base_mro[1:] for name in each.attributes}
        for name in above.intersection(made.attributes):
            kind = made.attributes[name]
            if not isinstance(kind, RPrimitive) or str(kind.name) in _COLLECTED:
                yield f"{info.fullname}.{name}: declared again, and so counted twice by the collector of garbage"
        for each in info.defn.defs.body:
            if not isinstance(each, AssignmentStmt) or not isinstance(each.lvalues[0], NameExpr):
                continue
            name = each.lvalues[0].name
            is_default = not isinstance(each.rvalue, TempNode) and name in made.attributes
            if is_default and default_attr_name(each, made, None) is None:
                yield f"{info.fullname}.{name}: its default is forgotten"


def typed(files: list[str], more: str = "") -> tuple[Any, Any, Any]:
    """The files as mypy sees them, `more` added to its settings: what they are made of, its result, its options."""
    options, cache = CompilerOptions(), FileSystemCache()
    with TemporaryDirectory() as folder:
        settings = Path(folder) / "mypy.ini"
        settings.write_text(hook.MYPY + more)
        sources, _, found = get_mypy_config(["--config-file", str(settings), *files], None, options, cache)
        return sources, parse_and_typecheck(sources, found, options, [(sources, "lbsvc")], cache), found


def problems(root: Path, names: list[str]) -> Iterator[str]:
    """All of them, in these files below `root`."""
    files = [str(root / name) for name in names]
    try:
        sources, result, mypy_options = typed(files, "warn_unreachable = True\n")
    except CompileError as mistakes:
        yield from mistakes.messages
        sources, result, mypy_options = typed(files)
    for source in sources:
        tree = result.files[source.module]
        short = str(Path(tree.path).relative_to(root / "lbsvc"))
        for node in narrowed(tree, result.types):
            if node.name not in SOUND.get(short, ()):
                yield f"{tree.path}:{node.line}: {node.name} is taken for {result.types[node]}: can a call have changed it?"
    classes = Mapper({source.module: "lbsvc" for source in sources})
    errors = Errors(mypy_options)
    compile_modules_to_ir(result, classes, CompilerOptions(), errors)
    yield from (line for line in errors.new_messages() if ": error:" in line or "default attribute" in line)
    yield from forgotten(classes)


if __name__ == "__main__":
    tree = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    found = sorted(problems(tree, sys.argv[2:] or hook.modules(tree)))
    sys.stdout.write("".join(f"{each}\n" for each in found))
    sys.exit(1 if found else 0)
