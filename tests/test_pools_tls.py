"""How TLS is spoken to the backends of a pool that takes other settings: what begins anew, and what files may do."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import TestCase

from lbsvc.config.schema import PoolSettings, PoolTls
from lbsvc.errors import SystemRefusal
from tests.kit.authority import Authority
from tests.kit.builders import backend, pool
from tests.kit.pooled import Pooled

PLAIN = backend("10.0.0.1:8001", name="plain")
SECURE = backend("10.0.0.2:8002", name="secure", is_secure=True)


class SpeechTests(TestCase):
    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.ca = Authority().write(self.folder)
        self.tls = PoolTls(ca=self.ca)

    def pooled(self, settings: PoolSettings) -> Pooled:
        made = Pooled(settings)
        self.addCleanup(made.stop)
        return made

    def test_another_section(self) -> None:
        """Other TLS settings concern backends that it is spoken to: what is kept for them goes; the others keep theirs."""
        made = self.pooled(pool(PLAIN, SECURE, tls=self.tls))
        words = made.named("secure").tls
        plain, secure = made.keep("plain"), made.keep("secure")
        made.apply(pool(PLAIN, SECURE, tls=PoolTls(ca=self.ca, server_name="other.example")))
        self.assertEqual((plain.is_closed, secure.is_closed, made.named("plain").tls), (False, True, None))
        self.assertIsNot(made.named("secure").tls, words)
        made.named("plain").idle.clear()

    def test_the_same(self) -> None:
        """Where nothing about it changes, whatever else does, the sessions that are known stay known."""
        made = self.pooled(pool(PLAIN, SECURE, tls=self.tls))
        words, secure = made.named("secure").tls, made.keep("secure")
        made.apply(pool(SECURE, tls=self.tls, algorithm="random"))
        self.assertEqual((made.named("secure").tls, secure.is_closed), (words, False))
        made.named("secure").idle.clear()

    def test_another_version(self) -> None:
        """Where HTTP/2 is to be spoken from now on it is, and where it is not to be any more it is not."""
        made = self.pooled(pool(SECURE, tls=self.tls))
        for protocol, is_multiplexed in (("h2", True), ("auto", True), ("http/1.1", False)):
            made.apply(pool(SECURE, tls=self.tls, protocol=protocol))
            self.assertEqual(made.named("secure").multiplexed is not None, is_multiplexed, protocol)

    def test_added(self) -> None:
        """The first backend that TLS is spoken to may come at run time."""
        made = self.pooled(pool(PLAIN))
        kept = made.keep("plain")
        made.apply(pool(PLAIN, SECURE))
        self.assertEqual((made.named("secure").tls is not None, kept.is_closed), (True, False))
        made.named("plain").idle.clear()

    def test_files(self) -> None:
        """Files that have changed are read with the next change of any kind; those that cannot be used are told of once, and
        what was read before stays; a section that is new must be usable."""
        made = self.pooled(pool(SECURE, tls=self.tls))
        words = made.named("secure").tls
        Path(self.ca).write_bytes(Authority("another CA").pem)
        self.assertEqual(made.apply(pool(SECURE, tls=self.tls)), [])
        self.assertIsNot(made.named("secure").tls, words)
        words = made.named("secure").tls
        Path(self.ca).write_text("broken")
        for _ in range(3):
            made.apply(pool(SECURE, tls=self.tls))
        self.assertIs(made.named("secure").tls, words)
        self.assertEqual([event for event, _ in made.events], ["certificate.refused"])
        with self.assertRaises(SystemRefusal):
            made.prepare(pool(SECURE, tls=PoolTls(ca=self.ca, verify=True, server_name="x.example")))
