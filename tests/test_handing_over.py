"""Run-time changes of one process, in force in the next from its start, and kept where that one keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lbsvc.config import overlay
from lbsvc.errors import Stopping, SystemRefusal
from lbsvc.reloading import Reloading
from tests.test_reloading import TEXT, ReloadingCase, changed


class HandingOverTests(ReloadingCase):
    def changed(self, text: str = TEXT) -> Any:
        """What a process hands over that was told one weight; as it comes out of JSON."""
        reloading = self.reloading(text)
        if reloading.settings.state_file is not None:
            reloading.restore()
        changed(reloading, lambda settings, held: overlay.set_weight(settings, held, "web", "10.0.0.1:80", 7))
        return json.loads(json.dumps(reloading.hand_over()))

    def weights(self, reloading: Reloading) -> list[int]:
        return [entry.weight for entry in reloading.settings.pools["web"].backends]

    def in_file(self, name: str) -> str:
        return f"{TEXT}\nstate_file: {Path(self.folder) / name}\n"

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.mktemp()
        Path(self.folder).mkdir()

    def test_without_a_file(self) -> None:
        """They are in force at the start, may be changed when the place is ours, and not before."""
        handed = self.changed()
        reloading = self.reloading()
        reloading.restore(handed)
        self.assertEqual(self.weights(reloading), [7, 1])
        reloading.closed = "not yet"
        self.assertRaises(Stopping, reloading.look_whether_open)
        reloading.take_over()
        reloading.look_whether_open()
        self.assertEqual(reloading.hand_over(), handed)

    def test_nothing_changed(self) -> None:
        """No changes are something to hand over, too: an older file of the same name does not come into it."""
        handed = json.loads(json.dumps(self.reloading().hand_over()))
        self.changed(self.in_file("state"))
        reloading = self.reloading(self.in_file("other"))
        reloading.restore(handed)
        self.assertEqual(self.weights(reloading), [1, 1])

    def test_same_file(self) -> None:
        """A file that both have is as the old one has left it, also where the new configuration overrules a change."""
        handed = self.changed(self.in_file("state"))
        reloading = self.reloading(
            self.in_file("state").replace('"10.0.0.1:80"', '{address: "10.0.0.1:80", weight: 3}')
        )
        reloading.restore(handed)
        self.assertEqual(self.weights(reloading), [3, 1])
        reloading.take_over()
        again = self.reloading(self.in_file("state"))
        again.restore()
        self.assertEqual(self.weights(again), [7, 1])

    def test_another_file(self) -> None:
        """A state file that is new gets the changes once the place is ours; before that nothing is written."""
        handed = self.changed()
        reloading = self.reloading(self.in_file("state"))
        reloading.restore(handed)
        self.assertEqual(list(Path(self.folder).iterdir()), [])
        reloading.take_over()
        again = self.reloading(self.in_file("state"))
        again.restore()
        self.assertEqual(self.weights(again), [7, 1])

    def test_another_file_with_changes(self) -> None:
        """One that holds others is refused, and left as it is."""
        self.changed(self.in_file("state"))
        before = (Path(self.folder) / "state").read_bytes()
        handed = self.reloading().hand_over()
        refusal = self.assertRaises(SystemRefusal, self.reloading(self.in_file("state")).restore, handed)
        self.assertIn("holds other run-time changes", str(refusal))
        self.assertEqual((Path(self.folder) / "state").read_bytes(), before)

    def test_nonsense(self) -> None:
        """What another version may have meant is refused in words."""
        for handed in (5, {}, {"state_file": None, "changes": {"pools": {"web": {"colour": 5}}}}):
            refusal = self.assertRaises(SystemRefusal, self.reloading().restore, handed)
            self.assertIn("cannot be taken over", str(refusal))

    def test_file_that_cannot_be_written_any_more(self) -> None:
        """It is told, and the changes are in force."""
        handed = self.changed()
        reloading = self.reloading(self.in_file("gone/state"))
        reloading.restore(handed)
        (Path(self.folder) / "gone").rmdir()
        reloading.take_over()
        self.assertEqual(self.weights(reloading), [7, 1])
        self.assertEqual([name for name, _ in self.events], ["state.refused"])
