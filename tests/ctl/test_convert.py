"""`lbctl convert`: what comes of each of the five, and what is said of it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.ctl.convert import convert_text
from lbsvc.ctl.convert_new import write
from lbsvc.errors import ConfigErrors
from tests.ctl.converting import ADAPTIVE, AKASH, L4LB, VIETDDUDE, converted, refused


class AkashTests(SynchronousTestCase):
    def test_plain(self) -> None:
        """Layer 4, with its limits, weights and checks by TCP (FIELD-7, FIELD-8)."""
        settings, lines = converted(json.dumps(AKASH))
        listener, pool = settings.listeners["main"], settings.pools["main"]
        self.assertEqual((str(listener.binds[0]), listener.protocol), ("0.0.0.0:1902", "tcp"))
        self.assertEqual((listener.max_connections, listener.pool), (500, "main"))
        self.assertEqual(
            [(each.address, each.weight) for each in pool.backends], [("127.0.0.1:8081", 1), ("127.0.0.1:8082", 2)]
        )
        check = pool.health_check
        assert check is not None
        self.assertEqual((check.type, check.interval, check.timeout), ("tcp", 9.0, 4.0))
        self.assertEqual(len(lines), 1)
        self.assertIn(":9100", lines[0])

    def test_paths(self) -> None:
        """Paths become routes, the longest first, to pools of those that have them; `/` is everything."""
        members = [("1:1", ["/api"]), ("1:2", ["/api/", "/api/v2/*"]), ("1:3", ["/"]), ("1:4", [])]
        listed = [{"address": f"10.0.0.{address}", "paths": paths} for address, paths in members]
        settings, lines = converted(json.dumps({**AKASH, "Backends": listed}))
        listener = settings.listeners["main"]
        self.assertEqual(listener.protocol, "http")
        self.assertEqual(
            [(r.match.path, r.pool) for r in listener.routes], [("/api/v2/*", "api-v2"), ("/api/*", "api")]
        )
        pools = {name: [each.address for each in pool.backends] for name, pool in settings.pools.items()}
        self.assertEqual(
            pools, {"main": ["10.0.0.1:3", "10.0.0.1:4"], "api-v2": ["10.0.0.1:2"], "api": ["10.0.0.1:1", "10.0.0.1:2"]}
        )
        self.assertIn("Akash never looked at them", "".join(lines))

    def test_only_paths(self) -> None:
        """Without a backend for everything, other paths have no pool, which is said."""
        settings, lines = converted(json.dumps({**AKASH, "Backends": [{"address": "a:1", "paths": ["/a b"]}]}))
        self.assertIsNone(settings.listeners["main"].pool)
        self.assertIn("requests for others get 404", "".join(lines))

    def test_losses(self) -> None:
        """Keys that it never asked, weights that it ignored, and keys that nobody knows are said with their places."""
        text = json.dumps({**AKASH, "algorithm": "round_robin", "health_check_port": "80", "colour": 1}, indent="\t")
        settings, lines = converted(text)
        self.assertEqual({each.weight for each in settings.pools["main"].backends}, {1})
        self.assertEqual([line.partition(" ")[0] for line in lines], ["old:", "old:8:2:", "old:18:2:", "old:19:2:"])
        self.assertIn("weights are left out", lines[1])
        self.assertIn("connects to each backend's own port", lines[2])
        self.assertIn("colour: is not known", lines[3])

    def test_tls(self) -> None:
        """Certificate and key make TLS; one of them alone is a mistake (FIELD-9)."""
        text = json.dumps({**AKASH, "tls_cert_file": "a.crt", "tls_key_file": "/k/a.key"})
        _, new, lines = convert_text(text, "old")
        self.assertEqual(new.listener["tls"], {"certificates": [{"cert": "a.crt", "key": "/k/a.key"}]})
        self.assertEqual(len([line for line in lines if "is looked for beside the new file" in line]), 1)
        self.assertIn("needs both", refused(self, json.dumps({**AKASH, "tls_cert_file": "a.crt"}))[0])

    def test_first_versions(self) -> None:
        """Its first versions had backends as plain texts."""
        settings, _ = converted(
            '{"listen": "1902", "backends": ["127.0.0.1:1", "127.0.0.1:2"], "algorithm": "least_conn"}'
        )
        self.assertEqual(settings.pools["main"].algorithm, "least_connections")
        self.assertEqual(len(settings.pools["main"].backends), 2)


class LoadexTests(SynchronousTestCase):
    def test_flags(self) -> None:
        """A command line in any of Go's spellings, whatever stands before its flags."""
        for text in (
            "./lb -port 9000 -backends http://a:1,http://b:2 -algo lc",
            "LOG_LEVEL=WARN lb --port=9000 --backends='http://a:1, http://b:2' --algo=leastconnection",
            "#!/bin/sh\n# run it\ndocker compose run --rm -p 9000:9000 loadex \\\n"
            "  -port 9000 \\\n  -backends http://a:1,http://b:2 -algo lc\n",
        ):
            settings, _ = converted(text)
            pool = settings.pools["main"]
            self.assertEqual(str(settings.listeners["main"].binds[0]), ":9000")
            self.assertEqual(pool.algorithm, "least_connections")
            self.assertEqual([each.address for each in pool.backends], ["http://a:1", "http://b:2"])
            self.assertEqual(settings.log.level, "warn" if "WARN" in text else "info")
            assert pool.health_check is not None
            self.assertEqual((pool.health_check.path, pool.health_check.expect_status), ("/health", ((200, 200),)))

    def test_defaults(self) -> None:
        """Port 8080 and round robin; a server that is there twice is one, as is said."""
        settings, lines = converted("-backends http://a:1,http://a:1,", "loadex")
        self.assertEqual(str(settings.listeners["main"].binds[0]), ":8080")
        self.assertEqual(len(settings.pools["main"].backends), 1)
        self.assertIn("more than once", "".join(lines))

    def test_weights(self) -> None:
        """The weights that it gave in secret are written out."""
        settings, lines = converted("-backends http://a:1,http://b:2,http://c:3 -algo wrr", "loadex")
        self.assertEqual([each.weight for each in settings.pools["main"].backends], [2, 1, 2])
        self.assertIn("2, 1, 2, 1", "".join(lines))

    def test_refused(self) -> None:
        """Flags that it does not have, and values that make no sense, are all told at once."""
        found = refused(self, "lb -port 70000 -backends notaurl,ftp://a:1 -algo zz")
        self.assertEqual(len(found), 5)
        self.assertIn("-c: is no flag of Loadex", refused(self, "lb -backends http://a:1 -c 100")[0])
        self.assertIn("needs a value", refused(self, "lb -backends")[0])
        self.assertIn("no command line", refused(self, "lb -backends 'http://a", "loadex")[0])
        self.assertIn("holds no flag", refused(self, "ls -l", "loadex")[0])


class RefusingTests(SynchronousTestCase):
    def test_all_at_once(self) -> None:
        """Every mistake is told, in the order of the places."""
        text = ADAPTIVE.replace("8080", "x").replace("round-robin", "zz").replace("weight: 3", "weight: -3")
        keys = [line.split(":")[3].strip() for line in refused(self, text)]
        self.assertEqual(keys, ["server.port", "strategy", "backends[0].weight"])

    def test_none_of_them(self) -> None:
        """What is none of the five, no YAML, or ours already, is refused and said to be that."""
        for text, words in (
            ("a: 1\n", "none of the configurations"),
            ("hello", "none of the configurations"),
            ("", "none of the configurations"),
            ("strategy: a: b\n", "a colon makes no key here"),
            ("listeners: {}\npools: {}\n", "ours already"),
            ("strategy: x\nstrategy: y\n", "twice"),
            ("strategy: rr\n", "at least one backend"),
        ):
            self.assertIn(words, "".join(refused(self, text)), text)

    def test_what_ours_refuses(self) -> None:
        """What our own rules refuse is told before anything is written."""
        found = refused(self, VIETDDUDE.replace("session_id", "a b"))
        self.assertIn("what comes of it would not be taken: pools.main.sticky.cookie", found[0])

    @given(st.text() | st.sampled_from([VIETDDUDE, ADAPTIVE, L4LB, json.dumps(AKASH)]), st.data())
    def test_anything(self, text: str, drawn: st.DataObject) -> None:
        """Any text, and any text with a piece taken out, gives a configuration that loads, or mistakes."""
        start = drawn.draw(st.integers(0, len(text)))
        end = drawn.draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + text[end:]
        kind = drawn.draw(st.sampled_from([None, "akash", "loadex", "adaptive", "vietddude", "l4lb"]))
        try:
            kind, new, _ = convert_text(text, "old", kind)
        except ConfigErrors as errors:
            self.assertTrue(errors.mistakes)
        else:
            self.assertIn("main", new.tree["listeners"])


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
values: Any = st.recursive(
    texts | st.booleans() | st.integers(-(2**40), 2**40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


class WritingTests(SynchronousTestCase):
    @given(st.dictionaries(texts, values, min_size=1, max_size=4))
    def test_round_trip(self, tree: dict[str, Any]) -> None:
        """What is written reads back as the same values, whatever is in them."""
        self.assertEqual(read(write(tree, ["one\ntwo"])), tree)


def read(text: str) -> Any:
    """YAML as configurations are read, `$${` taken back."""
    from lbsvc.config.document import Items, Mapping, Node, read_document

    def plain(node: Node) -> Any:
        if isinstance(node, Mapping):
            return {back(entry.key): plain(entry.value) for entry in node.entries.values()}
        if isinstance(node, Items):
            return [plain(entry.value) for entry in node.items]
        return back(node.value) if isinstance(node.value, str) else node.value

    def back(found: str) -> str:
        return found.replace("$${", "${")

    root, mistakes = read_document(text, "new.yaml")
    assert not mistakes, mistakes
    return plain(root)
