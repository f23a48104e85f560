"""The event log: JSON for machines, text for terminals, levels, and messages that cannot pass for other events."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.observe.events import STABLE, Events, level_in_force, timestamp

WALL = 1795223723.123456


@dataclass
class Lines:
    """A writer that keeps what it is given."""

    terminal: bool = False
    batches: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> bool:
        self.batches.append(data)
        return True

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        return b"".join(self.batches).decode("utf-8")


def events(lines: Lines, level: str = "debug", log_format: str = "auto") -> Events:
    return Events(lines, level, log_format, lambda: WALL)


class Unshowable:
    """An object whose str() fails."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class JSONTests(TestCase):
    def emitted(self, message: str, **fields: object) -> dict[str, object]:
        lines = Lines()
        events(lines).emit("info", "backend.up", message, **fields)
        self.assertEqual(lines.text().count("\n"), 1)
        parsed: dict[str, object] = json.loads(lines.text())
        return parsed

    def test_shape(self) -> None:
        """ts, level, event, message, then the event's own fields, in this order."""
        found = self.emitted("web/a: up", pool="web", backend="a", status=200)
        self.assertEqual(
            list(found.items()),
            [
                ("ts", "2026-11-21T01:15:23.123Z"), ("level", "info"), ("event", "backend.up"),
                ("message", "web/a: up"), ("pool", "web"), ("backend", "a"), ("status", 200),
            ],
        )  # fmt: skip

    def test_absent_fields(self) -> None:
        """A field without a value is left out."""
        self.assertNotIn("detail", self.emitted("m", detail=None))

    def test_fields_do_not_hide_the_frame(self) -> None:
        """A field called like one of the four gets another name."""
        found = self.emitted("m", ts=1)
        self.assertEqual((found["ts"], found["ts_"]), ("2026-11-21T01:15:23.123Z", 1))

    def test_anything_can_be_logged(self) -> None:
        """Bytes, exceptions, infinities, lone surrogates, loops, objects whose str() fails: a line of valid JSON each."""
        loop: list[object] = []
        loop.append(loop)
        self.assertEqual(self.emitted("m", a=b"\xff", b=OSError(2, "gone"))["a"], "\\xff")
        self.assertEqual(self.emitted("m", a=float("inf"))["a"], "inf")
        self.assertEqual(self.emitted("\udcff", a="\udcff")["message"], "\udcff")
        self.assertEqual(self.emitted("m", a=Unshowable())["a"], "<Unshowable>")
        self.assertEqual(self.emitted("m", a=loop)["message"], "m")

    @given(st.text(max_size=60), st.recursive(st.none() | st.text() | st.integers() | st.floats(), st.lists))
    def test_one_line_each(self, message: str, value: object) -> None:
        """Whatever is in a message or a field: one line, ASCII, and the message intact."""
        lines = Lines()
        events(lines).emit("warn", "twisted", message, value=value)
        text = lines.text()
        self.assertEqual((text.count("\n"), text[-1]), (1, "\n"))
        self.assertTrue(text.isascii())
        self.assertEqual(json.loads(text)["message"], message)


class TextTests(TestCase):
    def test_shape(self) -> None:
        """The terminal's form: time, level, event, message; fields are for machines."""
        lines = Lines(terminal=True)
        log = events(lines)
        log.emit("info", "backend.up", "web/a: up (status 200)", pool="web")
        log.emit("error", "pool.empty", "web: nobody")
        self.assertEqual(log.format, "text")
        self.assertEqual(
            lines.text(),
            "2026-11-21T01:15:23.123Z info  backend.up  web/a: up (status 200)\n"
            "2026-11-21T01:15:23.123Z error pool.empty  web: nobody\n",
        )

    def test_traceback(self) -> None:
        """A traceback stands below its event, indented."""
        lines = Lines()
        events(lines, log_format="text").emit("error", "twisted", "m", traceback="Traceback:\n  x\nE: y\n")
        self.assertEqual(lines.text().splitlines()[1:], ["    Traceback:", "      x", "    E: y"])

    def test_forging(self) -> None:
        """Neither line ends nor a terminal's control sequences come through, from message or traceback."""
        evil = "x\n2026-11-21T01:15:23.123Z info  admin.change  forged\r\x1b[2J\x9b\u2028\udc80é"
        lines = Lines()
        events(lines, log_format="text").emit("error", "twisted", evil, traceback=evil)
        first, *rest = lines.text().splitlines()
        self.assertIn(r"x\n2026", first)
        self.assertTrue(first.endswith(r"forged\r\x1b[2J\x9b\u2028\udc80é"), first)
        self.assertTrue(all(line.startswith("    ") and line.isprintable() for line in rest), rest)


class FormatTests(TestCase):
    def test_auto(self) -> None:
        """Text on a terminal, JSON elsewhere, what is asked for anywhere."""
        self.assertEqual(events(Lines(terminal=True)).format, "text")
        self.assertEqual(events(Lines(terminal=False)).format, "json")
        self.assertEqual(events(Lines(terminal=True), log_format="json").format, "json")
        self.assertEqual(events(Lines(terminal=False), log_format="text").format, "text")


class JournalTests(TestCase):
    def test_priority(self) -> None:
        """The journal is told the level of each line, of a traceback's too; other places are not."""
        for level, priority in (("debug", "<7>"), ("info", "<6>"), ("warn", "<4>"), ("error", "<3>")):
            lines = Lines()
            log = Events(lines, "debug", "text", lambda: WALL, True)
            log.emit(level, "twisted", "m", traceback="Traceback:\nE: y\n")
            self.assertEqual([line[:3] for line in lines.text().splitlines()], [priority] * 3)
            log.redirect(lines, "debug", "text")
            log.emit(level, "twisted", "m")
            self.assertTrue(lines.text().splitlines()[-1].startswith("2026-"), lines.text())


class LevelTests(TestCase):
    def test_threshold(self) -> None:
        """What is below the level is not written."""
        for level, expected in (("debug", 4), ("info", 3), ("warn", 2), ("error", 1)):
            lines = Lines()
            log = events(lines, level)
            for each in ("debug", "info", "warn", "error"):
                log.emit(each, "twisted", "m")
            self.assertEqual(len(lines.batches), expected)
            self.assertEqual(log.wants("info"), expected >= 3)

    def test_environment(self) -> None:
        """LOG_LEVEL overrides, in any case and usual spelling; empty it does not count; nonsense is reported."""
        self.assertEqual(level_in_force("info", {}), ("info", None))
        self.assertEqual(level_in_force("info", {"LOG_LEVEL": ""}), ("info", None))
        self.assertEqual(level_in_force("info", {"LOG_LEVEL": "DEBUG"}), ("debug", None))
        self.assertEqual(level_in_force("info", {"LOG_LEVEL": " Warning "}), ("warn", None))
        self.assertEqual(level_in_force("debug", {"LOG_LEVEL": "error"}), ("error", None))
        level, complaint = level_in_force("warn", {"LOG_LEVEL": "loud"})
        self.assertEqual(level, "warn")
        self.assertIn("LOG_LEVEL", str(complaint))

    def test_stable_names(self) -> None:
        """The names that stay are 25, lower-case, with one dot."""
        self.assertEqual(len(STABLE), 25)
        for name in STABLE:
            self.assertRegex(name, r"^[a-z]+\.[a-z_]+$")

    def test_timestamp(self) -> None:
        """Unix seconds as RFC 3339 in UTC, to the millisecond, never rounded into the next second."""
        self.assertEqual(timestamp(0.0), "1970-01-01T00:00:00.000Z")
        self.assertEqual(timestamp(1.9999), "1970-01-01T00:00:01.999Z")


class SubscriptionTests(TestCase):
    def setUp(self) -> None:
        self.lines = Lines()
        self.log = events(self.lines, "error")
        self.told: list[dict[str, Any]] = []

    def test_what_is_told(self) -> None:
        """A listener gets events with names that stay, as their JSON lines, whatever the level and the format."""
        self.log.subscribe(self.told.append)
        self.log.emit("info", "backend.up", "web/a: up", backend="a", load=float("inf"), live=Unshowable(), none=None)
        self.log.emit("error", "twisted", "not a change")
        self.assertEqual(
            self.told,
            [{"ts": "2026-11-21T01:15:23.123Z", "level": "info", "event": "backend.up", "message": "web/a: up",
              "backend": "a", "load": "inf", "live": "<Unshowable>"}],
        )  # fmt: skip
        self.assertEqual(len(self.lines.batches), 1)

    def test_each_has_its_own(self) -> None:
        """What one listener does to an event is not seen by another."""
        self.log.subscribe(lambda event: event.clear())
        self.log.subscribe(self.told.append)
        self.log.emit("info", "backend.up", "m")
        self.assertEqual(self.told[0]["event"], "backend.up")

    def test_the_end(self) -> None:
        """Who has unsubscribed is told nothing, twice over; others are."""
        end = self.log.subscribe(self.told.append)
        others: list[dict[str, Any]] = []
        self.log.subscribe(others.append)
        end()
        end()
        self.log.emit("info", "backend.up", "m")
        self.assertEqual((self.told, len(others)), ([], 1))

    def test_one_that_raises(self) -> None:
        """A listener that fails is not asked again; emit raises nothing, and the others are told."""
        calls: list[int] = []

        def broken(event: dict[str, Any]) -> None:
            calls.append(1)
            raise KeyError("x")

        self.log.subscribe(broken)
        self.log.subscribe(self.told.append)
        self.log.emit("info", "backend.up", "m")
        self.log.emit("info", "backend.down", "m")
        self.assertEqual((len(calls), len(self.told)), (1, 2))
