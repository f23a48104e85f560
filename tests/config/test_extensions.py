"""Algorithms of others: how they are found, what they are called, and what is said of those that cannot be used."""

from __future__ import annotations

import importlib
import itertools
import random
import shutil
import sys
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from lbsvc.config import extensions
from lbsvc.config.extensions import ExtensionFault, algorithm_names, known_algorithm
from lbsvc.core import adaptive, choices, hashed  # noqa: F401 - they register their pickers
from lbsvc.core.algorithms import ALGORITHMS
from lbsvc.core.pickers import PICKERS
from lbsvc.core.pool import Pool
from lbsvc.plugin import Algorithm, IAlgorithm
from tests.core.members import members
from tests.kit.processes import scratch_folder

NUMBERS = itertools.count()

#: A picker that is right; tests spoil it.
PICKER = """
from lbsvc.plugin import Picker
class Last(Picker):
    members = ()
    def update(self, backends):
        self.members = backends
    def pick(self, exclude):
        return next((each for each in reversed(self.members) if each not in exclude), None)
"""


class Plugins(TestCase):
    """A folder of plugins that only this test knows."""

    def setUp(self) -> None:
        self.package = f"plugins_of_test_{next(NUMBERS)}"
        folder = scratch_folder()
        self.addCleanup(shutil.rmtree, folder)
        self.folder = folder / self.package
        self.folder.mkdir()
        (self.folder / "__init__.py").touch()
        sys.path.insert(0, str(folder))
        self.addCleanup(sys.path.remove, str(folder))
        self.addCleanup(self.forget, dict(PICKERS))
        self.patch(extensions, "_package", lambda: importlib.import_module(self.package))

    def forget(self, pickers: dict[str, type]) -> None:
        PICKERS.clear()
        PICKERS.update(pickers)
        for name in [name for name in sys.modules if name.split(".")[0].endswith(self.package)]:
            del sys.modules[name]

    def write(self, module: str, text: str) -> Path:
        """A file beside the others; PACKAGE in its text is their package."""
        importlib.invalidate_caches()
        file = self.folder / f"{module}.py"
        file.write_text(dedent(text).replace("PACKAGE", self.package))
        return file

    def algorithm(self, picker: str = PICKER, name: str = "last") -> None:
        """An algorithm `last`, its class in a module of its own."""
        (self.folder.parent / f"theirs_{self.package}.py").write_text(picker)
        sys.modules.pop(f"theirs_{self.package}", None)
        shutil.rmtree(self.folder.parent / "__pycache__", True)  # a file may be as old and as long as the one before
        self.write(
            "last_plugin", f"from lbsvc.plugin import Algorithm\nlast = Algorithm({name!r}, 'theirs_PACKAGE.Last')"
        )

    def fault(self, name: str = "last") -> str:
        return str(self.assertRaises(ExtensionFault, known_algorithm, name)).replace(self.package, "PACKAGE")


class FindingTests(Plugins):
    def test_alg_10_by_name(self) -> None:
        """ALG-10: what a plugin adds is known by its name, in any spelling, and a pool can be balanced by it."""
        self.algorithm(name="last_one")
        for spelling in ("last_one", "Last-One", "LASTONE"):
            self.assertEqual(known_algorithm(spelling), "last_one")
        pool = Pool("web", "last_one", random.Random(1))
        pool.set_members(members("abc"))
        lease = pool.pick()
        assert lease is not None
        self.assertEqual(lease.backend.name, "c")

    def test_nobody(self) -> None:
        """ALG-8: a name that nobody has is none."""
        self.algorithm()
        self.assertIsNone(known_algorithm("lasting"))
        self.assertIsNone(known_algorithm(""))

    def test_names(self) -> None:
        """ALG-8: those of plugins are among the names to choose from, after ours."""
        self.algorithm()
        self.assertEqual(algorithm_names(), (*ALGORITHMS, "last"))

    def test_imported_where_named(self) -> None:
        """The class is imported when it is named, and not before."""
        self.algorithm()
        for name in ("round_robin", "lc", "lasting"):
            known_algorithm(name)
        self.assertFalse(f"theirs_{self.package}" in sys.modules)
        known_algorithm("last")
        self.assertTrue(f"theirs_{self.package}" in sys.modules)

    def test_ours_are_ours(self) -> None:
        """A plugin that calls itself by a name of ours, or by a short form, takes nothing over."""
        before = dict(PICKERS)
        for name in ("round-robin", "lc"):
            self.algorithm(name=name)
            self.assertIn(known_algorithm(name), ("round_robin", "least_connections"))
        self.assertEqual((PICKERS, algorithm_names()), (before, ALGORITHMS))

    def test_a_class_itself(self) -> None:
        """A plugin may give the class itself, and be any object that provides the interface."""
        self.write(
            "whole",
            PICKER
            + """
from twisted.plugin import IPlugin
from zope.interface import implementer
from lbsvc.plugin import IAlgorithm
@implementer(IPlugin, IAlgorithm)
class Adds:
    name = "last"
    picker = Last
adds = Adds()
""",
        )
        self.assertEqual(known_algorithm("last"), "last")

    def test_interface(self) -> None:
        """`Algorithm` provides what the interface asks for."""
        self.assertTrue(verifyObject(IAlgorithm, Algorithm("first", "package.First")))


class FaultTests(Plugins):
    def test_no_such_module(self) -> None:
        """A class that cannot be imported is a fault of the name, with the reason, on one line."""
        self.write(
            "last_plugin", "from lbsvc.plugin import Algorithm\nlast = Algorithm('last', 'not_there_at_all.Last')"
        )
        text = "its plugin PACKAGE.last_plugin cannot be used: ModuleNotFoundError: No module named 'not_there_at_all'"
        self.assertEqual(self.fault(), text)
        self.assertIsNone(known_algorithm("other"))

    def test_no_such_class(self) -> None:
        """So is one that is not in its module."""
        self.algorithm(picker="")
        self.assertIn("cannot be used: AttributeError: ", self.fault())

    def test_broken_module(self) -> None:
        """So is one whose module raises, whatever and however long the text of the exception is."""
        self.algorithm(picker="raise ValueError('one\\ntwo ' + 'x' * 10_000)")
        fault = self.fault()
        self.assertTrue(fault.startswith("its plugin PACKAGE.last_plugin cannot be used: ValueError: one two xxx"))
        self.assertLess(len(fault), 300)

    def test_no_picker(self) -> None:
        """What is no picker at all is refused."""
        for text in ("Last = 3", "class Last: pass", "def Last(rng): pass"):
            self.algorithm(picker=text)
            self.assertRegex(self.fault(), r"cannot be used: .* is no class that inherits from lbsvc\.plugin\.Picker$")

    def test_wrong_pickers(self) -> None:
        """A picker that does not do what every picker must is refused, with what it did."""
        for change, expected in (
            (
                ("if each not in exclude", ""),
                "Last picks two where the members are one and two and excluded one and two",
            ),
            (
                ("reversed(self.members)", "()"),
                "Last picks nobody where the members are one and two and excluded nobody",
            ),
            (
                ("self.members = backends", "self.members += tuple(backends)"),
                "Last picks two where the members are nobody",
            ),
            (("return next", "return 7 or next"), "Last picks 7 where the members are nobody"),
            (("def pick(self, exclude)", "def pick(self)"), "TypeError: "),
            (("members = ()", "def __init__(self): pass"), "TypeError: "),
            (("members = ()", "wants_hooks = True\n    def acquired(self): pass"), "TypeError: "),
            (("members = ()", "wants_results = True\n    def finished(self): pass"), "TypeError: "),
        ):
            self.assertIn(change[0], PICKER)
            self.algorithm(picker=PICKER.replace(*change))
            self.assertIn(expected, self.fault(), change)
            self.assertNotIn("last", PICKERS)

    def test_two_of_one_name(self) -> None:
        """A name that two plugins have is nobody's; the others can be used."""
        self.algorithm()
        self.write(
            "twice",
            """
            from lbsvc.plugin import Algorithm
            last = Algorithm("LAST", "a.B")
            fine = Algorithm("fine", "theirs_PACKAGE.Last")
            """,
        )
        self.assertEqual(self.fault(), "is added by two plugins: PACKAGE.last_plugin and PACKAGE.twice")
        self.assertEqual(known_algorithm("fine"), "fine")

    def test_a_plugin_file_that_cannot_be_imported(self) -> None:
        """It may be the one that is meant by an unknown name, and is told there; whoever names another is not bothered."""
        self.algorithm()
        self.write("broken", "import not_there_at_all")
        self.assertEqual(known_algorithm("last"), "last")
        names = ", ".join((*ALGORITHMS, "last"))
        self.assertEqual(
            self.fault("lasting"),
            f"must be one of {names}; of the plugins, PACKAGE.broken cannot be imported: "
            "ModuleNotFoundError: No module named 'not_there_at_all'",
        )
        self.assertGreaterEqual(len(self.flushLoggedErrors(ModuleNotFoundError)), 1)

    def test_a_plugin_without_a_name(self) -> None:
        """A plugin that has no name, or none that is text, cannot be named and is in nobody's way."""
        self.write("nameless", "from lbsvc.plugin import Algorithm\nlast = Algorithm(7, 'a.B')")
        self.assertIsNone(known_algorithm("last"))
        self.assertEqual(algorithm_names(), ALGORITHMS)

    def test_ours_pass_the_trial(self) -> None:
        """All of our own pickers pass what a plugin's must."""
        for kind in PICKERS.values():
            extensions._try_out(kind)
