"""Metrics of workers: names, types, labels and numbers; on both pages, and to promtool's liking."""

from __future__ import annotations

import subprocess
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.trial.unittest import TestCase

from lbsvc.core.books import Histogram
from lbsvc.observe.crew import WORKER_STATES, Spent, worker_series
from lbsvc.observe.exposition import slices
from lbsvc.observe.metrics import LbsvcCollector
from tests.admin.fake_control import WORKERS
from tests.observe.sample_view import realistic

#: Metric -> type and labels.
NAMES = {
    "lbsvc_workers": ("gauge", {"state"}),
    "lbsvc_worker_restarts_total": ("counter", {"worker"}),
    "lbsvc_worker_cpu_seconds_total": ("counter", {"worker"}),
    "lbsvc_worker_resident_memory_bytes": ("gauge", {"worker"}),
}


class Crew:
    """Two workers."""

    def rows(self) -> list[dict[str, Any]]:
        return WORKERS


def page(openmetrics: bool = False) -> str:
    collector = LbsvcCollector(realistic(), Histogram(), None, worker_series(Crew()))
    return b"".join(slices(collector, openmetrics)).decode()


class CrewTests(TestCase):
    def test_names_types_labels(self) -> None:
        """Each is there with its type and labels, and none besides; the strict parser takes them too."""
        types = {}
        for line in page().splitlines():
            if line.startswith("# TYPE lbsvc_worker"):
                name, kind = line.split()[2:]
                types[name] = kind
        self.assertEqual(types, {name: kind for name, (kind, _) in NAMES.items()})
        for families in (parse_text(page()), parse_openmetrics(page(openmetrics=True))):
            samples = [each for family in families for each in family.samples if each.name.startswith("lbsvc_worker")]
            self.assertEqual({sample.name for sample in samples}, set(NAMES))
            for sample in samples:
                self.assertEqual(set(sample.labels), NAMES[sample.name][1])

    def test_numbers(self) -> None:
        """They are those of the rows; every state is there, at zero where nobody is in it."""
        text = page()
        for line in ('lbsvc_workers{state="serving"} 1', 'lbsvc_workers{state="starting"} 1',
                     'lbsvc_workers{state="hung"} 0', 'lbsvc_worker_restarts_total{worker="2"} 1',
                     'lbsvc_worker_cpu_seconds_total{worker="1"} 1.5',
                     'lbsvc_worker_resident_memory_bytes{worker="2"} 12345678'):  # fmt: skip
            self.assertIn(f"\n{line}\n", text)
        self.assertEqual(text.count("\nlbsvc_workers{"), len(WORKER_STATES))

    def test_one_process(self) -> None:
        """Where there are no workers there is nothing of them."""
        collector = LbsvcCollector(realistic(), Histogram())
        self.assertNotIn(b"lbsvc_worker", b"".join(slices(collector)))

    def test_promtool(self) -> None:
        """promtool has nothing to say about them."""
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=page(), capture_output=True, text=True, timeout=60
        )
        self.assertEqual((done.stdout, done.stderr, done.returncode), ("", "", 0))

    def test_replaced(self) -> None:
        """While one replaces another in a place there is one series for both; CPU time does not fall when one is gone."""
        spent = Spent()
        one = {"worker": 1, "pid": 10, "cpu_seconds": 3.0}
        two = {"worker": 1, "pid": 11, "cpu_seconds": 0.5}
        self.assertEqual(spent.by_place([one]), {1: 3.0})
        self.assertEqual(spent.by_place([one, two]), {1: 3.5})
        self.assertEqual(spent.by_place([two]), {1: 3.5})
        self.assertEqual(spent.by_place([{**two, "cpu_seconds": 0.0}]), {1: 3.5})
