"""What parent and workers say to each other comes out as it went in."""

from __future__ import annotations

import shutil
import tempfile
import typing
from pathlib import Path
from types import MappingProxyType

import msgspec
from twisted.trial.unittest import TestCase

from lbsvc.core.record import Record
from lbsvc.errors import Mistake
from lbsvc.workers import messages
from lbsvc.workers.messages import Answer, Order, Verdict, pack_settings, unpack_settings
from tests import test_examples
from tests.kit import builders
from tests.workers.acting import empty_report

VERDICT = Verdict("web", "a", "127.0.0.1:1", "down", (False, 12.5, "refused"))

ORDERS: list[messages.Message] = [
    messages.Begin(1, 2, b"\x80", [VERDICT], {"a.example": ["10.0.0.1"]}),
    messages.Given([("127.0.0.1:80", 0), ("127.0.0.1:80", 1)]),
    messages.Accept(),
    messages.Prepare(3, 2, b"\x80"),
    messages.Commit(3, [("web", "a", 1.5), ("web", "b", None)]),
    messages.Abandon(3),
    messages.Checked([VERDICT]),
    messages.Named("a.example", []),
    messages.Ask(9),
    messages.Hurry("web", "a", None),
    messages.Found("web", "a", "127.0.0.1:1", "circuit"),
    messages.Tallied(1, [["clients", "main", "", [["::1", 2]]]]),
    messages.Forget(1),
    messages.Joined(),
    messages.Watch("main", b"agent"),
    messages.Reopen(),
    messages.Leave(30.0, True),
    messages.End(),
]

ANSWERS: list[messages.Message] = [
    messages.Ready(),
    messages.Resigned(),
    messages.Refused([("listeners.main.bind", "no")]),
    messages.Prepared(3, [("", "no")]),
    messages.Committed(3),
    messages.Reported(9, empty_report()),
    messages.Happened(b'{"event": "x"}'),
    messages.Witnessed(list(Record(1.5, b"\xff", "main", "HTTP/1.1", "::1", "::1"))),
    messages.Found("web", "a", "127.0.0.1:1", "ejected"),
    messages.Tallied(0, [["listener", "main", "", [[b"key", 1]]]]),
]


class MessageTests(TestCase):
    def test_there_and_back(self) -> None:
        """Each kind of message is read as what was written; none has been left out here."""
        for written, read, kinds in (
            (ORDERS, messages.read_order, typing.get_args(Order)),
            (ANSWERS, messages.read_answer, typing.get_args(Answer)),
        ):
            self.assertEqual({type(each) for each in written}, set(kinds))
            for each in written:
                self.assertEqual(read(messages.encode(each)), each)

    def test_others(self) -> None:
        """What is none of them, or goes the other way, is refused."""
        for nonsense in (b"", b"\xc0", messages.encode(messages.Ready())):
            self.assertRaises(msgspec.MsgspecError, messages.read_order, nonsense)
        self.assertRaises(msgspec.MsgspecError, messages.read_answer, messages.encode(messages.End()))

    def test_mistakes(self) -> None:
        """Mistakes keep their keys and words."""
        found = messages.unpack_mistakes(messages.pack_mistakes([Mistake("lb.yaml", 3, 1, "a.b", "no")]))
        self.assertEqual([(each.key, each.message) for each in found], [("a.b", "no")])


class SettingsTests(TestCase):
    def test_examples(self) -> None:
        """The settings of every example are equal when they have been to a worker, secrets included, and as frozen."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        files = sorted(Path(shutil.copytree(test_examples.ETC, Path(folder.name) / "etc")).rglob("*.yaml"))
        self.assertGreater(len(files), 4)
        for file in files:
            test_examples.furnish(file)
            settings = test_examples.load(file)
            again = unpack_settings(pack_settings(settings))
            self.assertEqual((file, again), (file, settings))
            self.assertEqual(again.admin.token, settings.admin.token)
            self.assertIs(type(again.pools), type(settings.pools))

    def test_frozen(self) -> None:
        """A mapping that could not be changed still cannot."""
        settings = builders.settings(builders.listener(pool="web"), builders.pool("127.0.0.1:1"))
        again = unpack_settings(pack_settings(settings))
        self.assertEqual(again, settings)
        frozen = type(settings)(MappingProxyType(dict(settings.listeners)), MappingProxyType({}))
        self.assertIsInstance(unpack_settings(pack_settings(frozen)).listeners, MappingProxyType)
