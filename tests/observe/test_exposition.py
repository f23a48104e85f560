"""The page as text: the same samples as prometheus_client writes, strict OpenMetrics, slices, and promtool's opinion."""

from __future__ import annotations

import subprocess

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.trial.unittest import TestCase

from lbsvc.core.books import Histogram
from lbsvc.observe.exposition import SLICE, slices
from lbsvc.observe.metrics import LbsvcCollector
from tests.observe.sample_view import SampleView, crowded, realistic

VIEWS = (realistic(), SampleView(), crowded(40))


def page(view: SampleView, openmetrics: bool = False) -> str:
    return b"".join(slices(LbsvcCollector(view, Histogram()), openmetrics)).decode()


def ours(families: list[Metric]) -> list[Metric]:
    return [family for family in families if family.name.startswith("lbsvc_")]


class TextTests(TestCase):
    def test_as_prometheus_client_writes_it(self) -> None:
        """Read back, the page has the families, help texts, types and samples of prometheus_client's own."""
        for view in VIEWS:
            reference = generate_latest(LbsvcCollector(view, Histogram())).decode()
            self.assertEqual(ours(list(parse_text(page(view)))), ours(list(parse_text(reference))))

    def test_process_metrics(self) -> None:
        """The process metrics are on both pages."""
        for openmetrics in (False, True):
            self.assertIn("\nprocess_cpu_seconds_total ", page(SampleView(), openmetrics))
            self.assertIn("\nprocess_open_fds ", page(SampleView(), openmetrics))

    def test_escaping(self) -> None:
        """Quotes and backslashes in names are escaped, in both formats."""
        wanted = 'route="host=\\"api\\" path=\\\\v1"'
        for openmetrics in (False, True):
            self.assertIn(wanted, page(realistic(), openmetrics))

    def test_promtool(self) -> None:
        """Debian's promtool has nothing to say about a page: a usual one, an empty one, a crowded one."""
        for view in VIEWS:
            done = subprocess.run(
                ["promtool", "check", "metrics"], input=page(view), capture_output=True, text=True, timeout=60
            )
            self.assertEqual((done.stdout, done.stderr, done.returncode), ("", "", 0))


class OpenMetricsTests(TestCase):
    def test_strictly(self) -> None:
        """The page passes prometheus_client's strict parser, ends once, and calls each sample as the text page does."""
        for view in VIEWS:
            text = page(view, True)
            names = {sample.name for family in ours(list(parse_openmetrics(text))) for sample in family.samples}
            self.assertEqual(
                names, {sample.name for family in ours(list(parse_text(page(view)))) for sample in family.samples}
            )
            self.assertEqual(text.count("# EOF"), 1)
            self.assertTrue(text.endswith("\n# EOF\n"))


class SliceTests(TestCase):
    def test_slices_are_bounded(self) -> None:
        """However many backends, no slice is much above SLICE lines."""
        pieces = list(slices(LbsvcCollector(crowded(300), Histogram())))
        self.assertGreater(len(pieces), 20)
        self.assertLess(max(piece.count(b"\n") for piece in pieces), SLICE + 100)

    def test_changes_between_slices(self) -> None:
        """Backends that go and requests that come while a page is made cost no error, and break no line."""
        view = crowded(300)
        books = view.listeners[0].route("r", "web")
        books.requests = {(b"GET", code): 1 for code in range(200, 200 + 2 * SLICE)}
        text = b""
        for number, piece in enumerate(slices(LbsvcCollector(view, Histogram()))):
            text += piece
            books.requests[b"POST", number] = 1
            if number < 5:
                view.pools[0].set_members(view.pools[0].backends[:-1])
            else:
                view.pools.clear()
        self.assertGreater(number, 5)
        self.assertTrue(text.endswith(b"\n"))
        for line in text.decode().splitlines():
            self.assertRegex(line, r"^(# (HELP|TYPE) .+|[a-z_]+(\{.*\})? [0-9.e+-]+)$")
