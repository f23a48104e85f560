"""What etc/prometheus and etc/grafana ask for: every expression with where it stands, read from the files that ship.

Promises: nothing is left out: the queries of panels, of annotations and of variables, of recording rules and of alerts.
`evaluable` puts in what Grafana would put in for its variables. Used by tests/test_monitoring.py, which reads, and
tests/integration/test_prometheus.py, which asks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.kit.processes import ROOT

ETC = ROOT / "etc"
BOARD = ETC / "grafana/dashboards/lbsvc.json"

#: An alert's last comparison: what is before it is the number that is watched.
_THRESHOLD = re.compile(r"\s(?:==|[<>]=?)\s[^()\n]*$")


@dataclass(frozen=True)
class Expression:
    """One expression of PromQL, and where it stands."""

    where: str
    text: str

    @property
    def evaluable(self) -> str:
        """As Grafana would send it: everything is chosen, the last minute is shown, rates are those of ten seconds."""
        text = self.text.replace("$__rate_interval", "10s").replace("$__range", "1m")
        return re.sub(r"\$(?!\{|__)\w+", ".*", text)

    @property
    def watched(self) -> Expression:
        """What an alert compares with its threshold."""
        left = _THRESHOLD.sub("", self.text.strip())
        assert left != self.text.strip(), f"{self.where}: no comparison at its end"
        return Expression(self.where, left)


def board() -> dict[str, Any]:
    """Grafana's dashboard."""
    found: dict[str, Any] = json.loads(BOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Its panels, the rows' titles left out."""
    return [panel for panel in board()["panels"] if panel["type"] != "row"]


def shown() -> Iterator[Expression]:
    """What the dashboard asks for, but for its variables."""
    for panel in panels():
        for target in panel["targets"]:
            yield Expression(f"panel {panel['title']}, {target['refId']}", target["expr"])
    for each in board()["annotations"]["list"]:
        if "expr" in each:
            yield Expression(f"annotation {each['name']}", each["expr"])


def chosen() -> Iterator[Expression]:
    """The series that the dashboard's variables take their values from."""
    for variable in board()["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found is not None, variable
            yield Expression(f"variable {variable['name']}", f"count by ({found[2]}) ({found[1]})")


def rules(kind: str) -> Iterator[dict[str, Any]]:
    """The rules that are a `record` or an `alert`."""
    for file in sorted((ETC / "prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from (rule for rule in group["rules"] if kind in rule)


def ruled(kind: str) -> Iterator[Expression]:
    """Their expressions."""
    for rule in rules(kind):
        yield Expression(f"{kind} {rule[kind]}", rule["expr"])
