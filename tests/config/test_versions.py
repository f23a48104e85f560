"""The version of HTTP towards backends: what a pool says of it in vain is noted, once and at the right key."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.config.loader import load_text

NOTE = "asks by HTTP/2, but requests go as HTTP/1.1: write h2c://, or https:// and protocol: h2"


class GrpcCheckTests(TestCase):
    def notes(self, backend: str, *, kind: str = "grpc", more: str = "", protocol: str = "http") -> list[str]:
        text = f"""
listeners: {{l: {{bind: ":1", protocol: {protocol}, pool: p}}}}
pools: {{p: {{backends: ["{backend}"], health_check: {{type: {kind}}}{more}}}}}
"""
        return [note for note in load_text(text, "lb.yaml", {}).notes if "pools.p.health_check" in note]

    def test_noted(self) -> None:
        """A grpc check of backends that get HTTP/1.1 is noted, over TLS too."""
        for backend in ("10.0.0.1:1", "http://10.0.0.1:1", "https://10.0.0.1:1"):
            self.assertEqual(self.notes(backend), [f"lb.yaml: pools.p.health_check: {NOTE}"])

    def test_nothing_to_note(self) -> None:
        """Nothing is said where requests go by HTTP/2, or may, where they are bytes, and of other checks."""
        self.assertEqual(self.notes("h2c://10.0.0.1:1"), [])
        self.assertEqual(self.notes("https://10.0.0.1:1", more=", protocol: h2"), [])
        self.assertEqual(self.notes("https://10.0.0.1:1", more=", protocol: auto"), [])
        self.assertEqual(self.notes("10.0.0.1:1", protocol="tcp"), [])
        self.assertEqual(self.notes("10.0.0.1:1", kind="tcp"), [])


class CodeNoteTests(TestCase):
    """Codes of gRPC in `retry.when`, by who uses the pool and what its backends are spoken to in."""

    def notes(self, backends: str, when: str, more: str = "", *protocols: str) -> list[str]:
        fronts = "".join(
            f"  l{i}: {{bind: ':{80 + i}', protocol: {word}, pool: p}}\n"
            for i, word in enumerate(protocols or ("http",))
        )
        text = f"listeners:\n{fronts}pools: {{p: {{backends: [{backends}], retry: {{when: [{when}]}}{more}}}}}\n"
        start = "lb.yaml: pools.p.retry.when: "
        return [note.removeprefix(start) for note in load_text(text, "lb.yaml", {}).notes if note.startswith(start)]

    def test_bytes(self) -> None:
        """Where only tcp listeners use the pool no calls are seen."""
        why = "nothing to do where only tcp listeners use the pool: they see no calls of gRPC"
        self.assertEqual(self.notes("'h:1'", "unavailable", "", "tcp"), [f"unavailable: {why}"])
        self.assertEqual(
            self.notes("h2c://h", "reset, unavailable, cancelled", "", "tcp", "tcp"),
            [f"cancelled and unavailable: {why}"],
        )
        self.assertEqual(self.notes("h2c://h", "unavailable", "", "tcp", "http"), [])
        self.assertEqual(self.notes("'h:1'", "reset", "", "tcp"), [])

    def test_http1(self) -> None:
        """Where every backend gets HTTP/1.1 none answers calls."""
        why = "is about gRPC, which is HTTP/2, but requests go as HTTP/1.1: write h2c://, or https:// and protocol: h2"
        for backends in ("'h:1'", "http://h", "https://h", "https://h, 'h:1'"):
            self.assertEqual(self.notes(backends, "connect_failure, unavailable"), [f"unavailable: {why}"])
        self.assertEqual(self.notes("https://h", "unavailable", ", protocol: http/1.1"), [f"unavailable: {why}"])
        self.assertEqual(self.notes("'h:1'", "5xx, reset"), [])

    def test_nothing_to_note(self) -> None:
        """Nothing is said where some backend may be asked by HTTP/2."""
        for backends, more in (
            ("h2c://h", ""),
            ("'h:1', h2c://h", ""),
            ("https://h", ", protocol: h2"),
            ("https://h", ", protocol: auto"),
        ):
            self.assertEqual(self.notes(backends, "unavailable", more), [])


class ProtocolNoteTests(TestCase):
    """What `protocol` and `tls` of a pool come to, by its addresses and its listeners."""

    def notes(self, backends: str, more: str = "", *protocols: str) -> list[str]:
        fronts = "".join(
            f"  l{i}: {{bind: ':{80 + i}', protocol: {word}, pool: p}}\n"
            for i, word in enumerate(protocols or ("http",))
        )
        text = f"listeners:\n{fronts}pools: {{p: {{backends: [{backends}]{more}}}}}\n"
        said = (note.removeprefix("lb.yaml: ") for note in load_text(text, "lb.yaml", {}).notes)
        return [note.removeprefix("pools.p.") for note in said if note.startswith("pools")]

    def assert_noted(self, backends: str, more: str, *notes: str) -> None:
        self.assertEqual(self.notes(backends, more), list(notes), (backends, more))

    def test_without_tls(self) -> None:
        """Who asks for HTTP/2 where nothing is https:// is told of h2c://."""
        why = "protocol: does nothing: no backend is https://; by HTTP/2 without TLS go h2c:// addresses"
        for backends in ("http://h", "'h:1'", "unix:h", "'h:1', h2c://h"):
            self.assert_noted(backends, ", protocol: h2", why)
            self.assert_noted(backends, ", protocol: auto", why)
            self.assert_noted(backends, ", protocol: http/1.1")

    def test_with_tls(self) -> None:
        """Where all are https://, or h2c:// besides, there is nothing to say."""
        for protocol in ("h2", "auto", "http/1.1"):
            self.assert_noted("https://h", f", protocol: {protocol}")
            self.assert_noted("https://h, h2c://i", f", protocol: {protocol}")
            self.assert_noted("https://h, h2c://i", f", protocol: {protocol}, tls: {{}}")

    def test_some_without_tls(self) -> None:
        """Where h2 is asked for and some are plain, these are named; auto leaves it to the backends."""
        tail = "spoken to by HTTP/1.1; by HTTP/2 without TLS go h2c:// addresses"
        for backends, some in (
            ("'h:1', https://h", "backends[0] is"),
            ("https://h, h2c://i, 'h:1', unix:h", "backends[2] and backends[3] are"),
            ("https://h, 'h:1', 'h:2', 'h:3', 'h:4'", "backends[1] and 3 more are"),
        ):
            self.assert_noted(backends, ", protocol: h2", f"protocol: is about https:// alone: {some} {tail}")
            self.assert_noted(backends, ", protocol: auto")

    def test_h2c(self) -> None:
        """h2c:// needs no `protocol`, and can have no TLS: one note, which is that of `tls` where there is one."""
        self.assert_noted("h2c://h, h2c://i", "")
        for word in ("h2", "auto", "http/1.1"):
            self.assert_noted("h2c://h", f", protocol: {word}", "protocol: does nothing: h2c:// is HTTP/2 in any case")
        why = "h2c:// is HTTP/2 without TLS; write https:// and protocol: h2 for HTTP/2 over TLS"
        for more in (
            "tls: {}",
            "tls: {verify: false}",
            "protocol: h2, tls: {}",
            "tls: {verify: false}, protocol: auto",
        ):
            self.assert_noted("h2c://h, h2c://i", f", {more}", f"tls: does nothing: {why}")
            self.assertEqual(self.notes("h2c://h", f", {more}", "http", "tcp")[-1], f"tls: does nothing: {why}")

    def test_vain_tls(self) -> None:
        """A `tls` that acts on nobody is the one thing that is said: not what its keys would do, nor `protocol` again."""
        self.assert_noted("'h:1'", ", tls: {verify: false}", "tls: does nothing: no backend is https://")
        both = "tls: does nothing, nor does protocol: no backend is https://"
        self.assert_noted("'h:1'", ", protocol: h2, tls: {}", both)

    def test_tcp(self) -> None:
        """A tcp listener makes no HTTP/2 of what its clients say."""
        bytes_only = "protocol: does nothing where only tcp listeners use the pool: they carry bytes"
        own = "h2c:// makes no HTTP/2 of what clients of tcp listeners say: they have to speak it themselves"
        self.assertEqual(self.notes("'h:1', h2c://h, h2c://i", "", "tcp"), [f"backends[1]: {own}"])
        self.assertEqual(self.notes("h2c://h", "", "tcp", "http"), [f"backends[0]: {own}"])
        for protocol in ("h2", "auto"):
            self.assertEqual(self.notes("https://h", f", protocol: {protocol}", "tcp"), [bytes_only])
            self.assertEqual(self.notes("'h:1'", f", protocol: {protocol}, tls: {{}}", "tcp"), [bytes_only])
            self.assertEqual(self.notes("https://h", f", protocol: {protocol}", "tcp", "http"), [])
        self.assertEqual(self.notes("https://h", ", protocol: http/1.1", "tcp"), [])
