"""Where configurations come from: files, texts, the command line."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import TestCase

from lbsvc.config.loader import check_text, from_options, load_file, load_text
from lbsvc.config.schema import Bind
from lbsvc.errors import ConfigErrors
from tests.config.reading import LISTENER, POOL, load, mistakes


def refusal(path: str) -> list[str]:
    try:
        load_file(path, {})
    except ConfigErrors as error:
        return [str(mistake) for mistake in error.mistakes]
    return []


class FileTests(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def written(self, source: bytes) -> str:
        path = os.path.join(self.folder, "lb.yaml")
        with open(path, "wb") as file:
            file.write(source)
        return path

    def test_a_file(self) -> None:
        """A file is read, and named as it was given; paths in it are relative to its folder."""
        path = self.written((LISTENER + POOL + "log: {path: x.log}\n").encode())
        loaded = load_file(path, {})
        self.assertEqual(loaded.settings.log.path, os.path.join(self.folder, "x.log"))
        self.assertEqual(refusal(self.written(b"a: 1\n"))[0].partition(": ")[0], f"{path}:1:1")

    def test_a_file_that_cannot_be_read(self) -> None:
        """A missing file, a folder, an impossible name: one mistake without a place."""
        missing = os.path.join(self.folder, "missing.yaml")
        self.assertEqual(refusal(missing), [f"{missing}: cannot be read: No such file or directory"])
        self.assertEqual(refusal(self.folder), [f"{self.folder}: cannot be read: Is a directory"])
        self.assertEqual(refusal("a\0b"), ["a\0b: cannot be read: no file can have this name"])

    def test_no_regular_file(self) -> None:
        """A pipe, whose writer might never come, and a device are refused; a stream of ours is read at the start."""
        pipe = os.path.join(self.folder, "pipe")
        os.mkfifo(pipe)
        for path in (pipe, "/dev/zero"):
            self.assertEqual(refusal(path), [f"{path}: cannot be read: it is no regular file"])
        reading, writing = os.pipe()
        given = f"/dev/fd/{reading}"
        self.assertEqual(refusal(given), [f"{given}: cannot be read: it is no regular file"])
        os.write(writing, (LISTENER + POOL).encode())
        os.close(writing)
        self.assertEqual(list(load_file(given, {}, is_start=True).settings.pools), ["p"])
        os.close(reading)
        with self.assertRaises(ConfigErrors):
            load_file(pipe, {}, is_start=True)

    def test_a_file_that_is_no_text(self) -> None:
        """Bytes that are no text, and files beyond 16 MiB, are mistakes."""
        path = self.written(b"\x80")
        self.assertEqual(refusal(path), [f"{path}:1:1: this is not UTF-8 text"])
        path = self.written(b"#" * (16 * 1024 * 1024 + 1))
        self.assertEqual(refusal(path), [f"{path}:1:1: the configuration is larger than 16 MiB"])


class TextTests(TestCase):
    def test_all_mistakes_at_once(self) -> None:
        """Mistakes of the text, of its keys and between them, in the order of their places, each once."""
        text = (
            "x: &a {weight: -3, address: h:1}\n"
            "listeners: {a: {bind: 80, bind: 81, pool: q}}\n"
            "pools: {p: {backends: [*a]}, q_: {backends: [!t 1]}}\n"
        )
        self.assertEqual(
            mistakes(text),
            [
                "1:1: x: unknown key",
                "1:8: pools.p.backends[0].weight: must be 0 or more (got -3)",
                "2:27: listeners.a.bind: is here twice (first in line 2)",
                '2:37: listeners.a.pool: there is no pool of this name (got "q"; did you mean q_?)',
                "3:46: pools.q_.backends[0]: the tag !t is not known; if this is text that begins with !, quote it",
            ],
        )

    def test_anchors_and_merges(self) -> None:
        """A place for anchors under x-, taken by alias and merge keys."""
        text = (
            "x-defaults:\n  pool: &pool\n    algorithm: rr\n    retry: off\n"
            "listeners: {a: {bind: 80, pool: p}}\n"
            "pools:\n  p:\n    <<: *pool\n    algorithm: lc\n    backends: [h:1]\n"
        )
        found = load(text).settings.pools["p"]
        self.assertEqual((found.algorithm, found.retry.attempts), ("least_connections", 1))

    def test_equal_texts_are_equal_settings(self) -> None:
        """Settings are compared by what they say, and a reload can tell what changed."""
        self.assertEqual(load(LISTENER + POOL).settings, load(LISTENER + "# more\n" + POOL).settings)
        self.assertNotEqual(load(LISTENER + POOL).settings, load(LISTENER + POOL + "    retry: off\n").settings)

    def test_settings_cannot_be_changed(self) -> None:
        """The mappings are read-only."""
        loaded = load(LISTENER + POOL)
        with self.assertRaises(TypeError):
            loaded.settings.pools["x"] = loaded.settings.pools["p"]  # type: ignore[index]

    def test_a_thousand_backends(self) -> None:
        """Many backends are one configuration, in their order."""
        lines = "".join(f"      - 10.0.{i // 250}.{i % 250}:80\n" for i in range(1000))
        found = load_text(LISTENER + "pools:\n  p:\n    backends:\n" + lines, "f", {}).settings.pools["p"].backends
        self.assertEqual([b.port for b in found], [80] * 1000)
        self.assertEqual(found[999].host, "10.0.3.249")


class CheckTests(TestCase):
    """A text that came from elsewhere."""

    def test_mistakes_and_notes(self) -> None:
        """The mistakes are those of a file of this name; a right one has its notes."""
        with self.assertRaises(ConfigErrors) as caught:
            check_text(LISTENER, "checked.yaml")
        message = 'checked.yaml:4:5: listeners.web.pool: there is no pool of this name (got "p")'
        self.assertEqual(str(caught.exception), message)
        notes = check_text(LISTENER + POOL, "checked.yaml")
        self.assertEqual(notes, [])

    def test_no_file_is_looked_at(self) -> None:
        """What is said is the same whether a file that is named is there or not, or is no certificate."""
        said = []
        for file in (__file__, "/no/such/file", "/"):
            tls = f"    tls: {{certificates: [{{cert: {file}, key: {file}}}], client_ca: {file}, ciphers: ECDHE+AESGCM}}\n"
            text = LISTENER + tls + POOL + f"    tls: {{ca: {file}, cert: {file}}}\n"
            said.append(check_text(text, "c.yaml"))
        self.assertEqual(said[1:], said[:1] * 2)
        unread = "is not read here: `twist loadbalancer --check` does that, where the file is"
        self.assertIn(f"c.yaml: listeners.web.tls.certificates[0].cert: {unread}", said[0])
        self.assertIn(f"c.yaml: listeners.web.tls.client_ca: {unread}", said[0])

    def test_no_variable_is_expanded(self) -> None:
        """Who asks learns nothing of the environment."""
        with self.assertRaises(ConfigErrors) as caught:
            check_text(LISTENER + POOL.replace("10.0.0.1:80", "'${HOME}:80'"), "c.yaml")
        self.assertIn("variables are not expanded here", str(caught.exception))


class OptionTests(TestCase):
    def wrong(self, listen: str, backends: str, algorithm: str | None = None) -> list[str]:
        with self.assertRaises(ConfigErrors) as caught:
            from_options(listen, backends, algorithm, {})
        return [str(mistake) for mistake in caught.exception.mistakes]

    def test_as_the_contract_shows(self) -> None:
        """One http listener and one pool, all else at its default."""
        loaded = from_options(":8080", "http://127.0.0.1:8001,http://127.0.0.1:8002", "lc", {"LOG_LEVEL": "debug"})
        listener, pool = loaded.settings.listeners["main"], loaded.settings.pools["main"]
        self.assertEqual(
            (listener.name, listener.binds, listener.protocol, listener.pool),
            ("main", (Bind("", 8080),), "http", "main"),
        )
        self.assertEqual(
            [(b.host, b.port, b.name) for b in pool.backends],
            [("127.0.0.1", p, f"http://127.0.0.1:{p}") for p in (8001, 8002)],
        )
        self.assertEqual((pool.name, pool.algorithm, loaded.settings.log.level), ("main", "least_connections", "debug"))

    def test_other_forms(self) -> None:
        """A port alone, spaces around commas, no algorithm."""
        loaded = from_options("8080", "a:1, b:2", None, {})
        self.assertEqual(loaded.settings.listeners["main"].binds, (Bind("", 8080),))
        self.assertEqual([b.name for b in loaded.settings.pools["main"].backends], ["a:1", "b:2"])
        self.assertEqual(loaded.settings.pools["main"].algorithm, "round_robin")

    def test_mistakes(self) -> None:
        """Each is named by its option, and all come at once."""
        names = "round_robin, least_connections, random, two_choices, ip_hash, consistent_hash or adaptive"
        self.assertEqual(
            self.wrong(":80x", "notaurl,h:1,,h:1,h2c://x,https://y,h2://z", "foo"),
            [
                '--listen: needs a port from 0 to 65535 (got ":80x")',
                '--backends: needs a port, as in 10.0.0.1:8001 (got "notaurl")',
                '--backends: needs a host, as in 10.0.0.1:8001 (got "")',
                "--backends: is the same address as backends[1]",
                "--backends: must be host:port, http://host:port, https://host:port, h2c://host:port or unix:PATH "
                '(got "h2://z"; did you mean h2c://? HTTP/2 over TLS is https:// with protocol: h2)',
                f'--algorithm: must be {names} (got "foo")',
            ],
        )
        self.assertEqual(self.wrong(":80", ""), ['--backends: needs a host, as in 10.0.0.1:8001 (got "")'])
        self.assertEqual(
            self.wrong(":9901", "h:1"),
            ['--listen: clashes with admin.bind, which is 127.0.0.1:9901 where it is not given (got ":9901")'],
        )

    def test_variables_are_the_shells_business(self) -> None:
        """Options are taken as they are."""
        self.assertEqual(
            self.wrong(":80", "${X}"),
            ['--backends: has a host that is neither an IP address nor a host name (got "${X}")'],
        )
