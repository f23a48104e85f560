"""Checks and requests that speak different versions of HTTP: said, since such a backend looks well and answers nothing."""

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
