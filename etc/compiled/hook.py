"""The build hook of the compiled wheel: what each request runs through becomes C, by mypyc; hatchling calls it if asked to.

Promises: nothing happens unless HATCH_BUILD_HOOKS_ENABLE is set, so that an ordinary installation needs no compiler. The
Python files stay the one source: they are shipped beside what was made of them, and a compiled module does what its file
says, or raises. An editable installation is never compiled: what was edited would not be what runs.

    HATCH_BUILD_HOOKS_ENABLE=true pip wheel --no-deps .

What a module has to keep to so that it may be named here (mypyc believes annotations, and checks them as the program runs):

- Annotations are true, also in tests and for who stands in for another (http/either.py); a `cast` to what it is not fails.
- What was found out about an attribute (`if self.exchange is None: ...`) does not outlive a call that may change it: mypy
  believes it does, and mypyc leaves out what mypy takes for unreachable. What comes behind such a call is a method of its
  own.
- A class has no decorator that mypyc does not know (classImplements instead), and whoever inherits from it is compiled too.
- An attribute is declared by one class of a line of heirs alone. A default on the class is a plain constant; None only where
  the type is one other, and no Protocol.
- Nobody refers to it weakly, copies it by `copy`, or asks for its __dict__ or __slots__.
- A slice of bytes does not end before it begins: that raises SystemError (mypyc 2.4).

audit.py looks for what can be seen, and tests/test_compiled.py has it look.

Decision: 2026-11-22, mypyc rather than Cython, measured with tests/bench/road_cost.py (`same`, Python 3.11.7): pure 5.8 µs,
Cython 3.3 in pure Python mode 7.6 (it does without the interpreter's own caches), mypyc 2.4 2.8.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: All of lbsvc/http is compiled but these: they are not run for requests, or inherit from what is not compiled.
LEFT_OUT = ("asking", "either", "h2_checks", "load", "mirroring", "tunnel")
#: Of lbsvc/core and lbsvc/net these.
NAMED = (
    *("core/backend", "core/books", "core/choosing", "core/leaving", "core/lease", "core/places", "core/pool"),
    *("core/queueing", "core/ramping", "core/retry", "core/tiers"),
    *("net/deadlines", "net/peeking", "net/protocol", "net/unsent"),
)
#: The environment variable that says how much the C compiler optimizes: 1 unless it is set. More takes longer for nothing.
LEVEL = "LBSVC_COMPILE_LEVEL"

_SETUP = """\
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from mypyc.build import mypycify
from setuptools import setup
from setuptools.command.build_ext import build_ext

WORKERS = len(os.sched_getaffinity(0))


class Together(build_ext):
    def build_extension(self, extension):
        one = self.compiler.compile

        def several(sources, **options):
            with ThreadPoolExecutor(WORKERS) as pool:
                return sum(pool.map(lambda source: one([source], **options), sources), [])

        self.compiler.compile = several if len(extension.sources) > 1 else one
        try:
            super().build_extension(extension)
        finally:
            self.compiler.compile = one


level, *files = sys.argv[1:]
extensions = mypycify(
    ["--config-file", "mypy.ini", *files], opt_level=level, debug_level="0", multi_file=True, group_name="lbsvc"
)
setup(
    name="lbsvc",
    packages=[],
    ext_modules=extensions,
    cmdclass={"build_ext": Together},
    script_args=["--quiet", "build_ext", "--inplace"],
)
"""


#: Only what would be compiled wrongly ends the build: style, and other modules, are the tests' concern.
MYPY = """\
[mypy]
plugins = mypy_zope:plugin
follow_imports = silent
"""


def modules(root: Path) -> list[str]:
    """The files that are compiled, relative to the root of the tree."""
    http = [file.stem for file in (root / "lbsvc/http").glob("*.py") if file.stem != "__init__"]
    named = [*NAMED, *(f"http/{name}" for name in http if name not in LEFT_OUT)]
    return [f"lbsvc/{name}.py" for name in sorted(named)]


def compile_tree(root: Path, folder: Path, level: str) -> list[Path]:
    """Compile a copy of the tree at `root`, in `folder`; the libraries that were made of it, which may be moved."""
    shutil.copytree(root / "lbsvc", folder / "lbsvc", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (folder / "mypy.ini").write_text(MYPY)
    made = subprocess.run(
        [sys.executable, "-c", _SETUP, level, *modules(root)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(f"could not compile (a C compiler and Python's headers are needed):\n{made.stdout[-8000:]}")
    shutil.rmtree(folder / "build")
    return sorted(folder.rglob("*.so"))


class CompiledBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled modules to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        self._folder = Path(tempfile.mkdtemp(prefix="lbsvc-compiled-"))
        for library in compile_tree(Path(self.root), self._folder, os.environ.get(LEVEL, "1")):
            build_data["force_include"][str(library)] = str(library.relative_to(self._folder))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        folder = getattr(self, "_folder", None)
        if folder is not None:
            shutil.rmtree(folder)
