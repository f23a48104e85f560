"""The monitoring stack in etc/, read: boards and rules ask for what exists, and promtool has nothing to say.

Whether there are answers is asked in tests/integration/test_prometheus.py. UI-6, UI-7, OPS-4.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import yaml
from prometheus_client.process_collector import ProcessCollector
from twisted.trial.unittest import TestCase

from lbsvc.config.loader import load_file
from lbsvc.core.books import Histogram
from lbsvc.observe.crew import worker_series
from lbsvc.observe.metrics import CIRCUITS, SERIES, STATES, LbsvcCollector, Series
from tests.kit.monitoring import ETC, Expression, board, chosen, panels, ruled, rules, shown
from tests.kit.processes import run
from tests.observe.sample_view import SampleView

PROMETHEUS = ETC / "prometheus"


class NoWorkers:
    """A crew of which nobody is there."""

    def rows(self) -> list[dict[str, Any]]:
        return []


WORKERS = worker_series(NoWorkers())


def known() -> dict[str, set[str]]:
    """Every sample that the service gives, by name, with its labels; and those that are recorded."""
    found: dict[str, set[str]] = {"up": set()}
    everything: tuple[Series, ...] = LbsvcCollector(SampleView(), Histogram(), None, WORKERS).series
    for series in everything:
        if series.kind == "histogram":
            found[f"{series.name}_bucket"] = {*series.labels, "le"}
            found[f"{series.name}_sum"] = found[f"{series.name}_count"] = set(series.labels)
        else:
            found[series.name] = set(series.labels)
    for family in ProcessCollector(registry=None).collect():
        for sample in family.samples:
            found[sample.name] = set()
    for rule in rules("record"):
        by = re.search(r"by \(([^)]*)\)", rule["expr"])
        found[rule["record"]] = set(re.split(r",\s*", by[1])) if by else set()
    return found


def everything() -> list[Expression]:
    return [*shown(), *chosen(), *ruled("record"), *ruled("alert")]


def named(expression: Expression) -> set[str]:
    """The metrics that it names."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression.text)
    return set(re.findall(r"\b(?:\w+:)?(?:lbsvc|process)_\w+(?::\w+)?|\bup\b(?=\{)", text))


class ExpressionTests(TestCase):
    def test_every_metric_exists(self) -> None:
        """Each metric that a panel, a variable or a rule names is one that the service or a rule gives."""
        names = known()
        self.assertGreater(len(everything()), 80)
        for expression in everything():
            self.assertTrue(named(expression), expression)
            self.assertEqual(named(expression) - set(names), set(), expression.where)

    def test_every_label_exists(self) -> None:
        """What is selected by is a label of that metric, and the state that is asked for is one."""
        names = known()
        for expression in everything():
            for metric, inner in re.findall(r"([\w:]+)\{([^}]*)\}", expression.text):
                matchers = dict(re.findall(r'(\w+)\s*=~?\s*"([^"]*)"', inner))
                self.assertEqual(set(matchers) - names[metric] - {"job", "instance"}, set(), expression.where)
                words = {"lbsvc_backend_state": STATES, "lbsvc_circuit_state": CIRCUITS}.get(metric, ())
                asked = set(matchers["state"].split("|")) if "state" in matchers else set()
                self.assertEqual(asked - set(words), set(), expression.where)

    def test_what_exists_is_shown(self) -> None:
        """Each metric of ours has its place on the dashboard: nothing is measured that nobody sees."""
        seen = {name.removesuffix("_bucket") for expression in shown() for name in named(expression)}
        self.assertEqual({series.name for series in (*SERIES, *WORKERS)} - seen, set())

    def test_each_state_is_shown(self) -> None:
        """The panels of states know every state, and give each a number of its own with a name and a colour."""
        for title, states in (("Health", STATES), ("Circuits", CIRCUITS)):
            (panel,) = (each for each in panels() if each["title"] == title)
            numbers = dict(re.findall(r'(\d) \* lbsvc_\w+\{[^}]*state="(\w+)"', panel["targets"][0]["expr"]))
            (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
            self.assertEqual(set(numbers.values()), set(states))
            self.assertEqual({number: each["text"] for number, each in mapping["options"].items()}, numbers)


class BoardTests(TestCase):
    def test_can_be_provisioned(self) -> None:
        """Its uid is fixed, it has no id and asks for no import, it is refreshed each five seconds (UI-6)."""
        found = board()
        self.assertEqual((found["uid"], found["refresh"], found["schemaVersion"]), ("golb-lb", "5s", 39))
        self.assertEqual({"id", "__inputs", "__requires", "__elements"} & set(found), set())

    def test_panels_are_whole(self) -> None:
        """Each says what it shows, in which unit, of the data source that was chosen, under an id of its own."""
        ids = [panel["id"] for panel in board()["panels"]]
        self.assertEqual(len(set(ids)), len(ids))
        for panel in panels():
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            self.assertTrue(all(source["uid"] == "${datasource}" for source in sources), panel["title"])
            self.assertTrue(panel["description"].endswith("."), panel["title"])
            self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])

    def test_panels_do_not_overlap(self) -> None:
        """They stand side by side on a grid of 24."""
        places = [(panel["title"], *(panel["gridPos"][side] for side in "xywh")) for panel in board()["panels"]]
        for title, x, _, w, _ in places:
            self.assertLessEqual(x + w, 24, title)
        for (one, x1, y1, w1, h1), (two, x2, y2, w2, h2) in combinations(places, 2):
            apart = x1 + w1 <= x2 or x2 + w2 <= x1 or y1 + h1 <= y2 or y2 + h2 <= y1
            self.assertTrue(apart, f"{one} and {two}")

    def test_rows(self) -> None:
        """From what clients feel to what it is due to."""
        rows = [panel["title"].split()[0] for panel in board()["panels"] if panel["type"] == "row"]
        self.assertEqual(rows, ["Requests:", "Pools", "Backends", "Saturation"])

    def test_promised_panels(self) -> None:
        """Percentiles, throughput, donut, errors; health, circuits, active connections, retries, reloads (UI-6,
        UI-7)."""
        kinds = {panel["title"]: panel["type"] for panel in panels()}
        promised = {
            "Rate by code": "timeseries", "Latency": "timeseries", "Throughput by backend": "timeseries",
            "Load distribution": "piechart", "5xx by backend": "timeseries", "Error share by pool": "timeseries",
            "Health": "state-timeline", "Circuits": "state-timeline", "Active connections": "timeseries",
            "Retries": "timeseries", "Queue": "timeseries", "Health checks": "timeseries", "Reloads": "timeseries",
            "Reactor lag": "timeseries", "Certificates": "bargauge",
        }  # fmt: skip
        self.assertEqual({title: kinds.get(title) for title in promised}, promised)
        (latency,) = (panel for panel in panels() if panel["title"] == "Latency")
        self.assertEqual([target["legendFormat"] for target in latency["targets"]], ["P50", "P95", "P99"])
        (donut,) = (panel for panel in panels() if panel["title"] == "Load distribution")
        self.assertEqual(donut["options"]["pieType"], "donut")

    def test_variables(self) -> None:
        """Every variable that is used is there, and each is used; rates are of Grafana's interval, never of a fixed one."""
        names = [variable["name"] for variable in board()["templating"]["list"]]
        self.assertEqual(names, ["datasource", "job", "instance", "listener", "pool", "backend"])
        texts = [each.text for each in (*shown(), *chosen())]
        used = {name for text in texts for name in re.findall(r"\$(\w+)", text)}
        self.assertEqual(used - {"__rate_interval", "__range"}, set(names) - {"datasource"})
        windows = {window for text in texts for window in re.findall(r"\[([^]]*)\]", text)}
        self.assertEqual(windows, {"$__rate_interval", "$__range"})


class RuleTests(TestCase):
    def promtool(self, *arguments: str) -> None:
        done = run(["promtool", *arguments], folder=PROMETHEUS)
        self.assertEqual(done.returncode, 0, done.stdout.decode() + done.stderr.decode())

    def test_configuration(self) -> None:
        """Promtool takes the configuration, with the rules and the targets that it names (OPS-4)."""
        self.promtool("check", "config", "prometheus.yml")
        self.promtool("check", "rules", *(str(file) for file in sorted(PROMETHEUS.glob("rules/*.yml"))))

    def test_rules_do_what_they_say(self) -> None:
        """promtool's own unit tests of the rules pass."""
        files = sorted(PROMETHEUS.glob("tests/*.yml"))
        self.assertEqual([file.name for file in files], ["alerts.yml", "recording.yml"])
        self.promtool("test", "rules", *(str(file) for file in files))

    def test_every_alert_is_tested(self) -> None:
        """Each alert has a moment at which it fires and one at which it does not."""
        alerts = {rule["alert"] for rule in rules("alert")}
        outcomes = {
            (each["alertname"], bool(each["exp_alerts"]))
            for test in self.units("alerts.yml")
            for each in test["alert_rule_test"]
        }
        self.assertEqual(outcomes, {(name, fires) for name in alerts for fires in (True, False)})

    def test_every_recording_is_tested(self) -> None:
        """Each recorded series is compared with numbers, or is what the one that is compared is made of."""
        tested = " ".join(each["expr"] for test in self.units("recording.yml") for each in test["promql_expr_test"])
        names = {rule["record"] for rule in rules("record")}
        self.assertEqual({name for name in names if name not in tested}, {next(n for n in names if "bucket" in n)})

    def units(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "tests" / name).read_text())["tests"]
        return found

    def test_alerts_say_what_to_do(self) -> None:
        """Each has a severity, a line that names who it is about, and one more; only their own labels are named."""
        for rule in rules("alert"):
            self.assertIn(rule["labels"]["severity"], ("page", "ticket"), rule["alert"])
            self.assertEqual(set(rule["annotations"]), {"summary", "description"}, rule["alert"])
            self.assertIn("{{ $labels.", rule["annotations"]["summary"], rule["alert"])
        names = [rule["alert"] for rule in rules("alert")]
        self.assertEqual(len(set(names)), len(names))

    def test_target_is_ours(self) -> None:
        """What is scraped is where etc/lb.yaml has its admin listener, under the name that the alerts look for."""
        (target,) = yaml.safe_load((PROMETHEUS / "targets/lbsvc.yml").read_text())
        admin = load_file(str(ETC / "lb.yaml"), {}).settings.admin
        assert admin is not None
        self.assertEqual(target["targets"], [str(admin.bind)])
        (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
        self.assertEqual(job["job_name"], "lbsvc")


class ProvisioningTests(TestCase):
    def test_data_source(self) -> None:
        """The board's data source is the one that is provisioned, and it knows how often is scraped."""
        (source,) = yaml.safe_load((ETC / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
        (variable,) = (each for each in board()["templating"]["list"] if each["type"] == "datasource")
        self.assertEqual((variable["query"], variable["current"]["value"]), (source["type"], source["uid"]))
        scraping = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
        self.assertEqual(source["jsonData"]["timeInterval"], scraping)

    def test_boards(self) -> None:
        """Boards are read from files, and nobody can change them in the browser and lose that (V18)."""
        (provider,) = yaml.safe_load((ETC / "grafana/provisioning/dashboards/lbsvc.yml").read_text())["providers"]
        self.assertEqual((provider["type"], provider["allowUiUpdates"]), ("file", False))
