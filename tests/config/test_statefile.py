"""The file of run-time changes: what is saved comes back, whole; what is damaged is set aside and stops nothing."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from lbsvc.config import statefile
from lbsvc.config.overlay import Overrides, PoolOverrides
from lbsvc.config.statefile import StateFile
from tests.kit.builders import backend

CHANGES = Overrides(
    (
        (
            "web",
            PoolOverrides(
                added=(backend("10.0.0.9:80", source="runtime"),),
                removed=(backend("10.0.0.2:80", max_connections=5),),
                weights=(("a", 1, 7), ("app@10.0.0.1", None, 0)),
                states=(("a", "drain"),),
                health=(("expect_status", ((200, 399),), ((200, 200), (204, 204))), ("interval", 5.0, 0.1)),
            ),
        ),
    )
)


class StateFileTests(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.path = self.folder / "state.json"
        self.file = StateFile(str(self.path))

    def damaged(self, content: str | bytes) -> str:
        """The complaint about a file of this content, which must be set aside as it is."""
        content = content.encode() if isinstance(content, str) else content
        self.path.write_bytes(content)
        before = set(self.folder.glob("state.json.damaged*"))
        overrides, complaint = self.file.load()
        self.assertEqual(overrides, Overrides())
        (aside,) = set(self.folder.glob("state.json.damaged*")) - before
        self.assertEqual(aside.read_bytes(), content)
        self.assertFalse(self.path.exists())
        self.assertIn(str(aside), complaint or "")
        return (complaint or "").partition(" (")[2].partition(");")[0]

    def test_round_trip(self) -> None:
        """What is saved is what is loaded, again and again, and nothing else is left in the folder."""
        for changes in (CHANGES, Overrides(), CHANGES):
            self.file.save(changes)
            self.assertEqual(self.file.load(), (changes, None))
            self.assertEqual(os.listdir(self.folder), ["state.json"])

    def test_missing(self) -> None:
        """Without a file nothing has been changed, and there is nothing to complain about."""
        self.assertEqual(self.file.load(), (Overrides(), None))

    def test_nobody_else_reads_it(self) -> None:
        """The file is its owner's alone, also in place of one that was not."""
        self.path.write_text("{}")
        self.path.chmod(0o666)
        self.file.save(CHANGES)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_damaged(self) -> None:
        """Whatever is not a whole file of ours is set aside, and the complaint says why."""
        for content, why in (
            ("", "Expecting value"),
            ("{", "Expecting property name"),
            (b"\xff\xfe", "codec can't decode"),
            ("[" * 100_000, ""),
            ("9" * 10_000, ""),
            ("[]", "no version"),
            ("{}", "no version"),
            ('{"version": 2, "pools": {}}', "not of version 1"),
            ('{"version": true, "pools": {}}', "not of version 1"),
            ('{"version": 1, "version": 1}', "a key is there twice"),
            ('{"version": 1, "pools": NaN}', "NaN is no number"),
            ('{"version": 1, "pools": []}', "pools: must be an object"),
            ('{"version": 1, "more": {}}', "has an unknown key"),
        ):
            self.assertIn(why, self.damaged(content), content[:30])

    def test_cut_short(self) -> None:
        """No beginning of a file is taken for a whole one."""
        self.file.save(CHANGES)
        whole = self.path.read_bytes().rstrip()
        for size in range(0, len(whole), 37):
            self.damaged(whole[:size])

    def test_set_aside_again(self) -> None:
        """A second damaged file does not replace the first that was set aside."""
        for _ in range(3):
            self.damaged("x")
        names = sorted(path.name for path in self.folder.iterdir())
        self.assertEqual(names, ["state.json.damaged", "state.json.damaged-1", "state.json.damaged-2"])

    def test_too_large(self) -> None:
        """A file that is larger than any of ours is not read to its end."""
        self.patch(statefile, "LARGEST", 100)
        self.assertEqual(self.damaged("x" * 101), "more than 100 bytes")

    def test_no_file(self) -> None:
        """A folder or a named pipe is left where it is, holds nothing up, and is complained about."""
        for make in (os.mkdir, os.mkfifo):
            make(self.path)
            overrides, complaint = self.file.load()
            self.assertEqual(overrides, Overrides())
            self.assertIn("cannot be read", complaint or "")
            self.assertEqual(os.listdir(self.folder), ["state.json"])
            if make is os.mkdir:
                os.rmdir(self.path)

    def test_cannot_be_set_aside(self) -> None:
        """Where a damaged file cannot be renamed, the complaint says that too, and the start goes on."""
        self.path.write_text("x")

        def rename(old: str, new: str) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(statefile.os, "rename", rename)
        overrides, complaint = self.file.load()
        self.assertEqual(overrides, Overrides())
        self.assertIn("cannot be set aside (Permission denied)", complaint or "")

    def test_cannot_be_read(self) -> None:
        """A file that cannot be read is set aside as well: what is saved later must not replace it."""
        self.file.save(CHANGES)

        def refuse(path: str, flags: int) -> int:
            raise PermissionError(errno.EACCES, "Permission denied")

        with self.subTest("refused"):
            patch = self.patch(statefile.os, "open", refuse)
            overrides, complaint = self.file.load()
            patch.restore()
        self.assertEqual(overrides, Overrides())
        self.assertIn("cannot be read (Permission denied)", complaint or "")
        self.assertEqual(os.listdir(self.folder), ["state.json.damaged"])

    def test_symlink(self) -> None:
        """Through a symlink the file that it leads to is read and replaced; the link stays."""
        (self.folder / "volume").mkdir()
        self.path.symlink_to("volume/kept.json")
        self.file.save(CHANGES)
        self.assertTrue(self.path.is_symlink())
        self.assertEqual(os.listdir(self.folder / "volume"), ["kept.json"])
        self.assertEqual(self.file.load(), (CHANGES, None))

    def test_failed_save(self) -> None:
        """A save that fails at any step leaves the former file as it was, and nothing beside it."""
        self.file.save(CHANGES)
        before = self.path.read_bytes()
        for step in ("fsync", "replace"):

            def fail(*given: Any) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch = self.patch(statefile.os, step, fail)
            with self.assertRaises(OSError) as refused:
                self.file.save(Overrides())
            patch.restore()
            self.assertEqual(refused.exception.errno, errno.ENOSPC)
            self.assertEqual(self.path.read_bytes(), before)
            self.assertEqual(os.listdir(self.folder), ["state.json"])

    def test_no_folder(self) -> None:
        """A save into a folder that is not there, or over a folder, raises OSError."""
        with self.assertRaises(OSError):
            StateFile(str(self.folder / "none" / "state.json")).save(CHANGES)
        self.path.mkdir()
        with self.assertRaises(OSError):
            self.file.save(CHANGES)
        self.assertEqual(os.listdir(self.folder), ["state.json"])

    def test_synced(self) -> None:
        """The content is synced before it takes the former's place, and the folder after that."""
        calls: list[str] = []
        fsync, replace = os.fsync, os.replace

        def synced(descriptor: int) -> None:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            content = "" if is_folder else Path(f"/proc/self/fd/{descriptor}").read_text()
            calls.append("folder" if is_folder else f"version {json.loads(content)['version']}")
            fsync(descriptor)

        def replaced(old: str, new: str) -> None:
            calls.append("replace")
            replace(old, new)

        self.patch(statefile.os, "fsync", synced)
        self.patch(statefile.os, "replace", replaced)
        self.file.save(CHANGES)
        self.assertEqual(calls, ["version 1", "replace", "folder"])

    def test_folders_that_cannot_be_synced(self) -> None:
        """A folder that cannot be synced is no reason to refuse a change; what a power cut may undo is told."""
        fsync = os.fsync
        for number, is_told in ((errno.EINVAL, False), (errno.EIO, True)):

            def failing(descriptor: int, number: int = number) -> None:
                if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    raise OSError(number, "no")
                fsync(descriptor)

            patch = self.patch(statefile.os, "fsync", failing)
            complaint = self.file.save(CHANGES)
            patch.restore()
            self.assertEqual("its folder cannot be synced (no)" in (complaint or ""), is_told)
            self.assertEqual(self.file.load(), (CHANGES, None))

    def refusal(self, path: Path) -> str:
        """Why changes cannot be kept there."""
        with self.assertRaises(OSError) as refused:
            StateFile(str(path)).prepare()
        return refused.exception.strerror or ""

    def test_folder_is_made(self) -> None:
        """The last folder of the path is made, for us alone; where more is missing nothing is, and that is said."""
        path = self.folder / "run" / "state.json"
        StateFile(str(path)).prepare()
        self.assertEqual(stat.S_IMODE((self.folder / "run").stat().st_mode), 0o700)
        self.assertEqual(os.listdir(self.folder / "run"), [])
        StateFile(str(path)).prepare()
        missing = self.folder / "a"
        self.assertEqual(self.refusal(missing / "b" / "state.json"), f"there is no folder {missing}")
        self.assertFalse(missing.exists())

    def test_what_cannot_be_written(self) -> None:
        """A folder or a pipe in its place, a file above it, a folder that takes no files: known before the first change."""
        for make, why in ((os.mkdir, "Is a directory"), (os.mkfifo, "it is no regular file")):
            make(self.path)
            self.assertEqual(self.refusal(self.path), why)
            os.rmdir(self.path) if make is os.mkdir else os.unlink(self.path)
        self.path.write_text("x")
        self.assertEqual(self.refusal(self.path / "state.json"), "Not a directory")
        self.assertEqual(self.path.read_text(), "x")

        def refuse(**given: Any) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(statefile.tempfile, "mkstemp", refuse)
        self.assertEqual(self.refusal(self.path), "Permission denied")

    def test_what_a_kill_left(self) -> None:
        """What a killed process left beside the file is removed, unless it is younger than this start, or another file's."""
        self.file.save(CHANGES)
        other = StateFile(str(self.folder / "other.json"))

        def leave(file: StateFile) -> Path:
            def die(old: str, new: str) -> None:
                raise SystemExit

            before = set(self.folder.iterdir())
            patches = [self.patch(statefile.os, "replace", die), self.patch(statefile.os, "unlink", lambda path: None)]
            self.assertRaises(SystemExit, file.save, CHANGES)
            for patch in patches:
                patch.restore()
            (left,) = set(self.folder.iterdir()) - before
            os.utime(left, (1, 1))
            return left

        ours, young, theirs = leave(self.file), leave(self.file), leave(other)
        os.utime(young, (2**33, 2**33))
        self.file.prepare()
        self.assertFalse(ours.exists())
        self.assertEqual(set(self.folder.iterdir()), {self.path, young, theirs})
        self.assertEqual(self.file.load(), (CHANGES, None))

    def test_a_name_of_any_length(self) -> None:
        """The longest name that a file can have is no trouble."""
        file = StateFile(str(self.folder / ("x" * 255)))
        file.prepare()
        file.save(CHANGES)
        self.assertEqual(file.load(), (CHANGES, None))

    def test_holds_others(self) -> None:
        """Other changes are told from the same ones and from none; what is damaged stays where it is."""
        self.assertFalse(self.file.holds_others(CHANGES))
        self.file.save(CHANGES)
        self.assertFalse(self.file.holds_others(CHANGES))
        self.assertTrue(self.file.holds_others(Overrides()))
        self.file.save(Overrides())
        self.assertFalse(self.file.holds_others(CHANGES))
        for damaged in ("{", "[" * 100_000):
            self.path.write_text(damaged)
            self.assertRaises(ValueError, self.file.holds_others, CHANGES)
            self.assertEqual(os.listdir(self.folder), ["state.json"])
