"""A changed configuration file is noticed once, when it has settled, wherever its path leads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.watching import LOOK, SETTLED, Watch, known
from tests.kit.processes import scratch_folder


class WatchTests(TestCase):
    def setUp(self) -> None:
        self.folder = scratch_folder()
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.file = self.folder / "lb.yaml"
        self.file.write_text("one")
        self.clock = Clock()
        self.changes: list[float] = []

    def watch(self, path: Path | None = None) -> Watch:
        watch = Watch(self.clock, str(path or self.file), lambda: self.changes.append(self.clock.seconds()))
        self.addCleanup(watch.stop)
        watch.start()
        return watch

    def wait(self, seconds: float = 3 * SETTLED) -> int:
        """Let time pass; how many changes have been told in all."""
        self.clock.pump([LOOK] * round(seconds / LOOK))
        return len(self.changes)

    def test_settled(self) -> None:
        """A change is told a second after the last one, not while a file is still being written."""
        self.watch()
        for text in ("tw", "two", "two and", "two and a half"):
            self.file.write_text(text)
            self.assertEqual(self.wait(0.75), 0)
        written = self.clock.seconds()
        self.assertEqual(self.wait(), 1)
        self.assertGreaterEqual(self.changes[0] - written, SETTLED - 0.75)
        self.assertLessEqual(self.changes[0] - written, SETTLED + LOOK)
        self.assertEqual(self.wait(), 1)

    def test_same(self) -> None:
        """touch, chmod, the same content written again or renamed into place, and a change taken back are no changes."""
        self.watch()
        os.utime(self.file)
        self.file.chmod(0o600)
        self.wait()
        self.file.write_text("one")
        self.wait()
        (self.folder / "new").write_text("one")
        (self.folder / "new").rename(self.file)
        self.wait()
        self.file.write_text("two")
        self.wait(0.5)
        self.file.write_text("one")
        self.assertEqual(self.wait(), 0)

    def test_renamed(self) -> None:
        """Editors write another file and rename it: that is a change."""
        self.watch()
        (self.folder / "new").write_text("two")
        (self.folder / "new").rename(self.file)
        self.assertEqual(self.wait(), 1)

    def test_same_size_and_time(self) -> None:
        """One with the same size and time of modification is seen by its other stamps."""
        self.watch()
        before = os.stat(self.file)
        self.file.write_text("two")
        os.utime(self.file, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertEqual(self.wait(), 1)

    def test_link_swapped(self) -> None:
        """A symlink that is swapped is a change: of the file itself, and of a folder above it, as Kubernetes does."""
        for name, text in (("v1", "one"), ("v2", "two"), ("v3", "three")):
            (self.folder / name).mkdir()
            (self.folder / name / "lb.yaml").write_text(text)
        (self.folder / "..data").symlink_to("v1")
        path = self.folder / "link.yaml"
        path.symlink_to("..data/lb.yaml")
        self.watch(path)
        (self.folder / "..tmp").symlink_to("v2")
        (self.folder / "..tmp").rename(self.folder / "..data")
        self.assertEqual(self.wait(), 1)
        (self.folder / "tmp").symlink_to("v3/lb.yaml")
        (self.folder / "tmp").rename(path)
        self.assertEqual(self.wait(), 2)
        (self.folder / "v3/lb.yaml").write_text("four")
        self.assertEqual(self.wait(), 3)

    def test_gone(self) -> None:
        """A file that is gone is told once, and again when it is back, even as it was; one that is back soon was not."""
        self.watch()
        self.file.unlink()
        self.assertEqual(self.wait(), 1)
        self.assertEqual(self.wait(), 1)
        self.file.write_text("one")
        self.assertEqual(self.wait(), 2)
        self.file.unlink()
        self.wait(0.5)
        self.file.write_text("one")
        self.assertEqual(self.wait(), 2)

    def test_noted(self) -> None:
        """What is read for another reason (SIGHUP) meanwhile is known; what comes after that is a change."""
        watch = self.watch()
        self.file.write_text("two")
        self.wait(0.5)
        watch.note()
        self.assertEqual(self.wait(), 0)
        self.file.write_text("three")
        self.assertEqual(self.wait(), 1)

    def test_before(self) -> None:
        """What changes between the first reading and the start is not missed."""
        before = known(str(self.file))
        self.file.write_text("two")
        watch = Watch(self.clock, str(self.file), lambda: self.changes.append(0.0), before)
        self.addCleanup(watch.stop)
        watch.start()
        self.assertEqual(self.wait(), 1)

    def test_off(self) -> None:
        """Stopped, it looks no more and leaves no timer; started again, it tells what it has missed."""
        watch = self.watch()
        watch.stop()
        watch.stop()
        self.assertFalse(watch.is_on)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.file.write_text("two")
        self.assertEqual(self.wait(), 0)
        watch.start()
        watch.start()
        self.assertTrue(watch.is_on)
        self.assertEqual(self.wait(), 1)

    def test_failing(self) -> None:
        """What fails with a change does not end the watch."""

        def fail() -> None:
            self.changes.append(0.0)
            raise RuntimeError("asked for")

        watch = Watch(self.clock, str(self.file), fail)
        self.addCleanup(watch.stop)
        watch.start()
        for text in ("two", "three"):
            self.file.write_text(text)
            self.wait()
        self.assertEqual(len(self.changes), 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_pipe(self) -> None:
        """What is no regular file is not read: that would take its content from whoever it is for, or wait for ever."""
        path = self.folder / "pipe"
        os.mkfifo(path)
        self.watch(path)
        self.assertEqual(self.wait(), 0)
        number = os.open(path, os.O_RDWR)
        self.addCleanup(os.close, number)
        os.write(number, b"listeners:")
        self.assertEqual(self.wait(), 0)
        self.assertEqual(os.read(number, 100), b"listeners:")

    def test_impossible(self) -> None:
        """A name that no file can have is a file that is not there."""
        self.assertEqual(known("a\0b"), known(str(self.folder / "nothing")))
