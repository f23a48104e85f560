"""What is dumped loads again to the same; what the loader takes, the schema takes."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config.document import read_document
from lbsvc.config.dump import dump
from lbsvc.config.loader import load_text
from lbsvc.config.schema import Settings
from lbsvc.config.spelling import spell_duration, spell_rate, spell_share, spell_size
from lbsvc.config.values import LARGEST, LONGEST, parse_duration, parse_rate, parse_share, parse_size
from lbsvc.errors import ConfigErrors
from tests.config.test_jsonschema import plain, validator
from tests.properties.test_config_properties import RIGHT

#: Settings that a key of another kind might take, and such as none takes.
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.5, 3, 200, 65535, 65536, 10**9, 10**20, "", "off", "on", "auto", "null", "5", "x"),
    *(
        "5s",
        "250ms",
        "1m30s",
        "0s",
        "-5s",
        "10y",
        "16KiB",
        "1.5MiB",
        "1K",
        "20%",
        "33.3%",
        "0%",
        "101%",
        "100/s",
        "7/m",
    ),
    *("0/s", "http", "tcp", "grpc", "h2", "both", "drop", "cookie", "ip", "Lax", "json", "systemd:web", "unix:a.sock"),
    *(":80", "h:1", "10.0.0.0/8", "::1", "GET", "get", "5xx", "unavailable", "UNAVAILABLE", 503, "header:X-A", "path"),
    *(
        "client_ip",
        "listener",
        "consistent_hash",
        "RR",
        "web",
        "db",
        "200-399",
        "400-200",
        "/x",
        "/x/*",
        "*.a.b",
        "a b",
    ),
    *(
        "\u00e9",
        "a\nb",
        "${HOME}",
        "$${x",
        [],
        {},
        ["x"],
        [5],
        [[]],
        {"x": 1},
        {"x-a": 1},
        ["GET"],
        ["10.0.0.0/8", "unix"],
    ),
    *(
        {"path": "/x"},
        {"rate": "1/s"},
        {"type": "http"},
        {"delay": "1s"},
        {"pool": "web"},
        {"web": 1},
        [{"pool": "web"}],
    ),
]


def tree() -> Any:
    """A right configuration with almost every key, as JSON would hold it."""
    return plain(read_document(RIGHT.replace('"${W}"', "1"), "f")[0])


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each node below the root."""
    found = [path] if path else []
    steps = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, each in steps:
        found += places(each, (*path, step))
    return found


PLACES = places(tree())


def holds(node: Any, step: Any) -> bool:
    """Whether there is such a key, or such an item."""
    return (
        step in node
        if isinstance(node, dict)
        else isinstance(node, list) and isinstance(step, int) and step < len(node)
    )


@st.composite
def changed(draw: st.DrawFn) -> Any:
    """The configuration with some values in the places of others, or left out."""
    root = copy.deepcopy(tree())
    for path in draw(st.lists(st.sampled_from(PLACES), max_size=4, unique=True)):
        node = root
        for step in path[:-1]:
            node = node[step] if holds(node, step) else None
        if not holds(node, path[-1]):
            continue
        if draw(st.booleans()) and isinstance(node, dict):
            del node[path[-1]]
        else:
            node[path[-1]] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return root


def loaded(root: Any, folder: str, env: dict[str, str] | None = None) -> Settings | None:
    try:
        return load_text(json.dumps(root), os.path.join(folder, "lb.yaml"), env or {"HOME": "h", "TOKEN": ""}).settings
    except ConfigErrors:
        return None


def masked(found: Settings) -> Settings:
    """The same with stars in the places of the token and of the keys of cookies."""
    pools = {
        name: replace(pool, sticky=replace(pool.sticky, key=pool.sticky.key and "***")) if pool.sticky else pool
        for name, pool in found.pools.items()
    }
    admin = replace(found.admin, token=found.admin.token and "***") if found.admin else None
    return replace(found, pools=MappingProxyType(pools), admin=admin)


SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class DumpPropertyTests(SynchronousTestCase):
    @SETTINGS
    @given(changed())
    def test_what_is_dumped_loads_again(self, root: Any) -> None:
        """Whatever has been loaded (its secrets aside) is told in words that load to equal settings, and fit the schema."""
        with tempfile.TemporaryDirectory() as folder:
            found = loaded(root, folder)
            if found is None:
                return
            words = dump(found)
            self.assertEqual(loaded(words, folder), masked(found))
            self.assertEqual([str(error) for error in validator().iter_errors(words)], [])

    @SETTINGS
    @given(changed())
    def test_what_loads_fits_the_schema(self, root: Any) -> None:
        """The schema refuses nothing that the loader takes."""
        if loaded(root, "/x") is not None:
            self.assertEqual([str(error) for error in validator().iter_errors(root)], [])

    def test_most_places_are_reached(self) -> None:
        """What is changed is right before, so that each property has something to say."""
        self.assertIsNotNone(loaded(tree(), "/x"))
        self.assertGreater(len(PLACES), 100)


class SpellingPropertyTests(SynchronousTestCase):
    def test_values_come_back_exactly(self) -> None:
        """Durations, sizes, shares and rates, however they were written."""

        @SETTINGS
        @given(st.floats(0.001, LONGEST) | st.integers(0, 10**6).map(float), st.integers(0, LARGEST))
        def durations_and_sizes(seconds: float, size: int) -> None:
            for value, spell, parse in ((seconds, spell_duration, parse_duration), (size, spell_size, parse_size)):
                self.assert_exact(value, spell, parse)

        @SETTINGS
        @given(
            st.decimals(0, 100, places=6) | st.decimals(0, 1, places=30), st.decimals("0.001", 10**6, places=9),
            st.sampled_from("smh"),
        )  # fmt: skip
        def shares_and_rates(percent: Any, rate: Any, unit: str) -> None:
            share, events = parse_share(f"{percent:f}%"), parse_rate(f"{rate:f}/{unit}")
            assert share is not None and events is not None
            self.assertEqual(parse_share(spell_share(share)), share)
            self.assertEqual(parse_rate(spell_rate(events)), events)

        durations_and_sizes()
        shares_and_rates()

    def assert_exact(self, value: Any, spell: Callable[[Any], Any], parse: Callable[[str], Any]) -> None:
        written = spell(value)
        self.assertEqual(parse(written) if isinstance(written, str) else written, value)
