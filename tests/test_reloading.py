"""Which configuration is in force: reloads and run-time changes, all or nothing, with parts that record what they hear."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from lbsvc.config import overlay, statefile
from lbsvc.config.loader import Loaded, load_text
from lbsvc.config.schema import Settings
from lbsvc.errors import ConfigErrors, Mistake, SystemRefusal
from lbsvc.reloading import Applied, Reloading

TEXT = """
listeners: {main: {bind: "127.0.0.1:8080", pool: web}}
pools:
  web: {backends: ["10.0.0.1:80", "10.0.0.2:80"]}
  other: {backends: ["10.0.0.3:80"]}
"""


def load(text: str = TEXT) -> Loaded:
    return load_text(text, "lb.yaml", {})


def changed(reloading: Reloading, *arguments: Any) -> Applied:
    """What comes of a change: without followers it is made at once, or raises."""
    found: list[Any] = []
    reloading.change(*arguments).addBoth(found.append)
    (result,) = found
    if isinstance(result, Failure):
        result.raiseException()
    return result  # type: ignore[no-any-return]


class Part:
    """A part that obeys, or refuses."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told
        self.refusal: SystemRefusal | None = None
        self.error: Exception | None = None
        self.settings: Settings | None = None

    def prepare(self, old: Settings, new: Settings) -> Part:
        if self.error is not None:
            raise self.error
        if self.refusal is not None:
            raise self.refusal
        self.told.append(f"{self.name} prepares")
        self.pending = new
        return self

    def commit(self) -> list[str]:
        self.told.append(f"{self.name} commits")
        self.settings = self.pending
        return [f"{self.name}: changed"]

    def abandon(self) -> None:
        self.told.append(f"{self.name} abandons")


class ReloadingCase(TestCase):
    def setUp(self) -> None:
        self.told: list[str] = []
        self.parts = [Part("a", self.told), Part("b", self.told)]
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.loads: list[Deferred[Loaded]] = []

    def reloading(self, text: str = TEXT, **given: Any) -> Reloading:
        return Reloading(
            load(text),
            "lb.yaml",
            lambda: self.loads.pop(0),
            lambda: self.parts,
            lambda level, event, message, **fields: self.events.append((event, fields)),
            **given,
        )

    def reload(self, reloading: Reloading, text: str) -> Applied:
        self.loads.append(succeed(load(text)))
        return self.successResultOf(reloading.reload("test"))


class FileTests(ReloadingCase):
    def test_another_file(self) -> None:
        """A file that is right comes into force: every part prepares before the first commits, and the changes are told."""
        reloading = self.reloading()
        applied = self.reload(reloading, TEXT.replace("10.0.0.2", "10.0.0.9"))
        self.assertEqual(applied, Applied(2, ("a: changed", "b: changed")))
        self.assertEqual(self.told, ["a prepares", "b prepares", "a commits", "b commits"])
        self.assertEqual(reloading.settings.pools["web"].backends[1].address, "10.0.0.9:80")
        self.assertEqual((reloading.results, reloading.last_ok), ({"success": 1, "failure": 0}, True))
        self.assertEqual(reloading.revisions, {"web": 2, "other": 1})
        event, fields = self.events[0]
        self.assertEqual((event, fields["generation"], fields["by"]), ("config.reloaded", 2, "test"))
        self.assertEqual(self.events[1:], [])

    def test_noted(self) -> None:
        """What is odd about a file that comes into force is told, after its coming into force."""
        reloading = self.reloading()
        self.loads.append(succeed(replace(load(), notes=["lb.yaml: log.level: is odd"])))
        self.successResultOf(reloading.reload("test"))
        self.assertEqual([event for event, _ in self.events], ["config.reloaded", "config.note"])

    def test_told(self) -> None:
        """Who looks settings up (`watch`) is told when others are in force, also where an admin call asked for them."""
        reloading = self.reloading()
        seen: list[bool] = []
        reloading.on_change = lambda: seen.append(reloading.settings.watch)
        self.reload(reloading, f"{TEXT}watch: true\n")
        changed(reloading, weigh(3))
        self.assertEqual(seen, [True, True])

    def test_a_wrong_file(self) -> None:
        """A file with mistakes changes nothing; they are told to whoever asked, to the log and as a metric."""
        reloading = self.reloading()
        before = reloading.settings
        mistakes = [Mistake("lb.yaml", 3, 1, "pools", "is wrong")]
        self.loads.append(fail(ConfigErrors(mistakes)))
        refusal = self.failureResultOf(reloading.reload("test"), ConfigErrors).value
        self.assertEqual(refusal.mistakes, mistakes)
        self.assertIs(reloading.settings, before)
        self.assertEqual((reloading.generation, reloading.results["failure"], reloading.last_ok), (1, 1, False))
        ((event, fields),) = self.events
        self.assertEqual((event, fields["errors"]), ("config.refused", ["lb.yaml:3:1: pools: is wrong"]))
        self.assertEqual(self.told, [])

    def test_a_part_refuses(self) -> None:
        """What the system refuses changes nothing: whoever has prepared gives up, and each mistake has its place."""
        reloading = self.reloading()
        before = reloading.settings
        self.parts[1].refusal = SystemRefusal([Mistake("", 0, 0, "listeners.main.bind", "is taken")])
        self.loads.append(succeed(load()))
        refusal = self.failureResultOf(reloading.reload("test"), SystemRefusal).value
        self.assertEqual([str(each) for each in refusal.mistakes], ["lb.yaml:2:20: listeners.main.bind: is taken"])
        self.assertEqual(self.told, ["a prepares", "a abandons"])
        self.assertIs(reloading.settings, before)

    def test_a_part_fails(self) -> None:
        """A fault of ours while preparing leaves everything as it was, and is told like any refusal."""
        reloading = self.reloading()
        self.parts[1].error = ZeroDivisionError("oh")
        self.loads.append(succeed(load()))
        self.failureResultOf(reloading.reload("test"), ZeroDivisionError)
        self.assertEqual(self.told, ["a prepares", "a abandons"])
        self.assertEqual([event for event, _ in self.events], ["config.refused"])
        self.parts[1].error = None
        self.assertEqual(self.reload(reloading, TEXT).generation, 2)

    def test_one_at_a_time(self) -> None:
        """A reload that is asked for while another reads its file comes after it."""
        reloading = self.reloading()
        first: Deferred[Loaded] = Deferred()
        self.loads += [first, succeed(load())]
        one, two = reloading.reload("one"), reloading.reload("two")
        self.assertNoResult(one)
        self.assertNoResult(two)
        first.callback(load())
        self.assertEqual(self.successResultOf(one).generation, 2)
        self.assertEqual(self.successResultOf(two).generation, 3)

    def test_stopping(self) -> None:
        """Nothing is changed any more once the service stops, not even by a file that was being read then."""
        reloading = self.reloading()
        reading: Deferred[Loaded] = Deferred()
        self.loads.append(reading)
        late = reloading.reload("late")
        reloading.closed = "the service is stopping"
        reading.callback(load())
        self.failureResultOf(late, SystemRefusal)
        self.failureResultOf(reloading.reload("later"), SystemRefusal)
        with self.assertRaises(SystemRefusal):
            changed(reloading, lambda settings, overrides: overrides)
        self.assertEqual(self.told, [])

    def test_without_a_file(self) -> None:
        """A service that was started without a file says that there is none."""
        reloading = Reloading(load(), "command line", None, lambda: self.parts, lambda *args, **fields: None)
        refusal = self.failureResultOf(reloading.reload("test"), SystemRefusal).value
        self.assertIn("without a file", str(refusal.mistakes[0]))

    def test_supervised(self) -> None:
        """Whoever supervises is told that a reload begins, and that it is over, whatever came of it."""
        states: list[str] = []
        reloading = self.reloading(tell_state=states.append)
        self.reload(reloading, TEXT)
        self.loads.append(fail(ConfigErrors([])))
        self.failureResultOf(reloading.reload("test"), ConfigErrors)
        self.assertEqual(states, ["reloading", "ready"] * 2)


def weigh(weight: int) -> Any:
    return lambda settings, overrides: overlay.set_weight(settings, overrides, "web", "10.0.0.1:80", weight)


class ChangeTests(ReloadingCase):
    def test_change(self) -> None:
        """A run-time change comes into force by the same road, without another generation."""
        reloading = self.reloading()
        self.assertEqual(changed(reloading, weigh(7)).generation, 1)
        self.assertEqual(reloading.settings.pools["web"].backends[0].weight, 7)
        self.assertEqual(self.told, ["a prepares", "b prepares", "a commits", "b commits"])
        self.assertEqual(reloading.revisions, {"web": 2, "other": 1})

    def test_outlives_a_reload(self) -> None:
        """It outlives a reload, unless the file says something new about the same thing."""
        reloading = self.reloading()
        changed(reloading, weigh(7))
        self.reload(reloading, TEXT.replace("10.0.0.2", "10.0.0.9"))
        self.assertEqual(reloading.settings.pools["web"].backends[0].weight, 7)
        self.reload(reloading, TEXT.replace('"10.0.0.1:80"', '{address: "10.0.0.1:80", weight: 2}'))
        self.assertEqual(reloading.settings.pools["web"].backends[0].weight, 2)

    def test_unknown(self) -> None:
        """What cannot be is refused before anybody prepares."""
        reloading = self.reloading()
        with self.assertRaises(overlay.Unknown):
            changed(reloading, lambda settings, overrides: overlay.set_weight(settings, overrides, "web", "x", 1))
        self.assertEqual(self.told, [])


class StateFileTests(ReloadingCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.text = f"{TEXT}\nstate_file: {(self.path / 'state.json').resolve()}\n"

    def test_restart(self) -> None:
        """With a state file a change outlives a restart."""
        self.reloading(self.text).change(weigh(7))
        again = self.reloading(self.text)
        again.restore()
        self.assertEqual(again.settings.pools["web"].backends[0].weight, 7)
        self.assertEqual(self.events, [])

    def test_cannot_be_written(self) -> None:
        """A change that cannot be written down is refused, and nothing has changed."""
        reloading = self.reloading(self.text)
        before = reloading.settings
        (self.path / "state.json").mkdir()
        with self.assertRaises(SystemRefusal) as refused:
            changed(reloading, weigh(7))
        self.assertIn("state_file", str(refused.exception.mistakes[0]))
        self.assertIs(reloading.settings, before)
        self.assertEqual(self.told, ["a prepares", "b prepares", "b abandons", "a abandons"])
        ((event, fields),) = self.events
        self.assertEqual((event, fields["path"]), ("state.refused", str((self.path / "state.json").resolve())))

    def test_damaged(self) -> None:
        """A damaged file is told of, set aside, and stops nothing."""
        (self.path / "state.json").write_text("{")
        reloading = self.reloading(self.text)
        reloading.restore()
        self.assertEqual([event for event, _ in self.events], ["state.damaged"])
        self.assertEqual(reloading.settings.pools["web"].backends[0].weight, 1)
        self.assertTrue(list(self.path.glob("state.json.damaged*")))

    def test_known_at_the_start(self) -> None:
        """Where changes could not be kept the start is refused, with the key's place; a missing last folder is made."""
        with self.assertRaises(SystemRefusal) as refused:
            self.reloading(f"{TEXT}\nstate_file: /proc/none/at/all\n").restore()
        (mistake,) = self.reloading(f"{TEXT}\nstate_file: x\n").locate(refused.exception.mistakes)
        self.assertEqual(str(mistake), "lb.yaml:7:1: state_file: cannot be written: there is no folder /proc/none")
        reloading = self.reloading(self.text.replace("state.json", "run/state.json"))
        reloading.restore()
        changed(reloading, weigh(7))
        self.assertTrue((self.path / "run" / "state.json").exists())

    def test_another_file_takes_over(self) -> None:
        """What is in force goes into another state file at once; one that holds other changes, or nonsense, is refused."""
        reloading = self.reloading(self.text)
        reloading.restore()
        changed(reloading, weigh(7))
        other = self.path / "run" / "other.json"
        text = self.text.replace("state.json", "run/other.json")
        self.reload(reloading, text)
        self.assertEqual(other.read_bytes(), (self.path / "state.json").read_bytes())
        changed(reloading, weigh(8))
        kept = other.read_bytes()
        for content, why in (
            ((self.path / "state.json").read_bytes(), "holds other run-time changes"),
            (b"{", "move it away"),
        ):
            (self.path / "state.json").write_bytes(content)
            self.told.clear()
            self.loads.append(succeed(load(self.text)))
            refusal = self.failureResultOf(reloading.reload("test"), SystemRefusal).value
            self.assertTrue(str(refusal.mistakes[0]).startswith("lb.yaml:7:1: state_file: "))
            self.assertIn(why, str(refusal.mistakes[0]))
            self.assertEqual((self.path / "state.json").read_bytes(), content)
            self.assertEqual(self.told[-2:], ["b abandons", "a abandons"])
        self.assertEqual(other.read_bytes(), kept)
        (self.path / "state.json").unlink()
        self.reload(reloading, self.text)
        self.assertEqual((self.path / "state.json").read_bytes(), kept)

    def test_another_name_of_the_same_file(self) -> None:
        """A file that is named in another way is no other one."""
        reloading = self.reloading(self.text)
        changed(reloading, weigh(7))
        weighed = TEXT.replace('"10.0.0.1:80"', '{address: "10.0.0.1:80", weight: 2}')
        self.reload(reloading, f"{weighed}\nstate_file: {self.path.resolve()}/./state.json\n")
        self.assertEqual(reloading.settings.pools["web"].backends[0].weight, 2)

    def test_folder_that_cannot_be_synced(self) -> None:
        """A change that is in the file is made, whatever becomes of its folder; that is told."""
        reloading = self.reloading(self.text)

        def fail_(folder: str) -> None:
            raise OSError(5, "Input/output error")

        self.patch(statefile, "_sync_folder", fail_)
        changed(reloading, weigh(7))
        self.assertEqual(reloading.settings.pools["web"].backends[0].weight, 7)
        self.assertEqual([event for event, _ in self.events], ["state.unsynced"])
