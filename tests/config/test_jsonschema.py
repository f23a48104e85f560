"""The JSON Schema of the configuration: it takes what the loader takes, and tells an editor what it would be told by us."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
from twisted.trial.unittest import TestCase

import lbsvc
from lbsvc.config.descriptions import DESCRIPTIONS
from lbsvc.config.document import Items, Node, Scalar, read_document
from lbsvc.config.jsonschema import paths, printed, schema
from tests.config.reading import LISTENER, POOL, mistakes
from tests.config.test_reference import BESIDE, KEYS, whole

ETC = Path(lbsvc.__file__).resolve().parent.parent / "etc"


@cache
def validator() -> Any:
    return jsonschema_rs.validator_for(schema())


def plain(node: Node) -> Any:
    """A tree of nodes as what JSON would hold."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Items):
        return [plain(entry.value) for entry in node.items]
    return {key: plain(entry.value) for key, entry in node.entries.items()}


def errors(text: str) -> list[str]:
    """What the schema has against a configuration."""
    node, wrong = read_document(text, "x")
    assert not wrong
    return [f"{list(error.instance_path)}: {error.message}" for error in validator().iter_errors(plain(node))]


class SchemaTests(TestCase):
    def test_is_a_schema(self) -> None:
        """It is itself valid by what it says it is."""
        self.assertTrue(jsonschema_rs.meta.is_valid(schema()))

    def test_file_is_up_to_date(self) -> None:
        """etc/lb.schema.json is what is made now: `lbctl schema > etc/lb.schema.json` makes it anew."""
        self.assertTrue((ETC / "lb.schema.json").read_text() == printed(), "lbctl schema > etc/lb.schema.json")

    def test_what_ships_is_right_and_names_it(self) -> None:
        """Every configuration under etc/ fits, and its first line leads an editor to the schema."""
        files = sorted(ETC.rglob("*.yaml"))
        self.assertGreater(len(files), 4)
        for file in files:
            text = file.read_text()
            self.assertEqual(errors(text), [], file)
            named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
            self.assertTrue(named and (file.parent / named[1]).samefile(ETC / "lb.schema.json"), file)

    def test_every_key_of_the_reference_fits(self) -> None:
        """Each key is taken at a value that asks for something, alone or beside what it needs."""
        for path, written in KEYS.items():
            self.assertEqual(errors(whole(path, written)), [], path)
        for key, (written, section) in BESIDE.items():
            text = whole(section + ".MARK", "1").replace("MARK: 1", written)
            self.assertEqual(errors(text), [], key)

    def test_every_key_is_described(self) -> None:
        """There is a text for each key, and for no other; all keys of the reference are there."""
        self.assertEqual(set(DESCRIPTIONS) ^ set(paths()), set())
        self.assertLessEqual(set(KEYS) | set(BESIDE), set(paths()))

    def test_defaults(self) -> None:
        """They stand beside the keys, in the file's own words, and are values that these keys take."""
        keys = {"listeners": "timeouts.idle", "pools": "retry.budget"}
        found = []
        for top, path in keys.items():
            node = schema()["properties"][top]["additionalProperties"]
            for step in path.split("."):
                node = next(each for each in [node, *node.get("anyOf", [])] if "properties" in each)["properties"][step]
            found.append(node["default"])
        self.assertEqual(found, ["10m", "20%"])
        for path, key, value in _defaults(schema(), ""):
            one = jsonschema_rs.validator_for({**key, "$defs": schema()["$defs"]})
            self.assertTrue(one.is_valid(value), (path, value))

    def test_what_is_wrong(self) -> None:
        """What the loader refuses for its shape is refused: each of these by both."""
        for text in (
            "pools: {}", "listeners: {}", "listeners: {w: {bind: 80}}", "listeners: {w: {pool: p}}",
            *(LISTENER + f"    {line}\n" + POOL for line in (
                "kein: 1", "backlog: 0", "backlog: '1'", "protocol: udp", "forwarded: true", "max_connections: -1",
                "timeouts: {idle: 5 parsecs}", "timeouts: {idle: 0}", "timeouts: {idel: 1s}", "limits: {body_size: 1K}",
                "rate_limit: 100", "rate_limit: {rate: 1/s, key: cookie}", "tls: {alpn: h2}", "access_log: off",
                "trusted_proxies: 5", "routes: [{}]", "routes: [{deny: 200}]", "routes: [{deny: 403, match: {paht: /}}]",
                "routes: [{pool: p, match: {methods: get}}]", "routes: [{redirect: {to: /, status: 200}}]",
                "routes: [{respond: {status: 99}}]", "routes: {pool: p}", "routes: [{split: {p: x}}]",
                "routes: [{pool: p, match: {sni: a.b}}]", "routes: [{pool: p, rewrite: {path: [a]}}]",
            )),
            LISTENER.replace("pool", "protocol: tcp\n    pool") + "    routes: [{pool: p, match: {path: /x}}]\n" + POOL,
            LISTENER.replace("pool", "protocol: tcp\n    pool") + "    routes: [{pool: p, deny: 403}]\n" + POOL,
            *(LISTENER + POOL + f"    {line}\n" for line in (
                "sticky: header", "health_check: {interval: 1 s}", "health_check: ftp", "panic_threshold: 5",
                "retry: {when: [nonsense!]}", "retry: {methods: get}", "queue: {size: 1.5}", "hash_key: cookie",
                "protocol: http2", "proxy_protocol: 2", "resolve: never", "tls: {verify: 'yes'}", "connections: []",
            )),
            *(LISTENER + f"pools: {{p: {{{line}}}}}\n" for line in (
                "backends: {}", "backends: [{name: a}]", "backends: [{address: 'a:1', weight: -3}]",
                "backends: [{address: 'a:1', wieght: 3}]", "backends: [5]", "algorithm: 5, backends: ['a:1']",
            )),
            *(LISTENER + POOL + line for line in (
                "watch: yes", "state_file: 5", "admin: on", "admin: {token: 5}", "log: {level: loud}", "kein: 1",
                "shutdown: {removed: never}", "access_log: {sample: 1}", "admin: {read_only: off}",
            )),
        ):  # fmt: skip
            self.assertTrue(mistakes(text), text)
            self.assertTrue(errors(text), text)

    def test_short_forms(self) -> None:
        """One value where it says it all, off where a section can be off, and variables anywhere."""
        for line in (
            "health_check: tcp", "health_check: off", "health_check: false", "sticky: cookie", "sticky: off", "retry: off",
            "queue: off", "circuit_breaker: null", "slow_start: off", "resolve: null", "algorithm: 'Weighted-RoundRobin'",
            "health_check: '${CHECK:-tcp}'", "slow_start: ${SLOW:-30s}", "queue: {size: '${N:-5}'}",
            "retry: {when: 503, methods: GET}", "x-mine: {a: 1}", "timeouts: {connect: 5, idle: 1.5, response: 1m30s}",
        ):  # fmt: skip
            text = LISTENER + POOL + f"    {line}\n"
            self.assertEqual((mistakes(text), errors(text)), ([], []), line)


def _defaults(node: Any, path: str) -> list[tuple[str, dict[str, Any], Any]]:
    """Every key of the schema that has a default, with it."""
    found = []
    if isinstance(node, dict):
        if "default" in node:
            found.append((path, node, node["default"]))
        for key, each in node.items():
            found += _defaults(each, f"{path}.{key}")
    elif isinstance(node, list):
        for each in node:
            found += _defaults(each, path)
    return found


class FileTests(TestCase):
    def test_is_json(self) -> None:
        """What is printed is JSON, the same each time."""
        self.assertEqual(json.loads(printed()), schema())
        self.assertEqual(printed(), printed())
