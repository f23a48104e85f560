"""Whatever stands in a certificate's files or comes in a hello: an answer, never an exception that nobody meant."""

from __future__ import annotations

import os
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config.certificates import CertificateFault, load_ca, load_pair
from lbsvc.config.schema import CertificateFiles
from lbsvc.net.served_names import MOST_PROTOCOLS, _protocols, normal_name
from lbsvc.net.server_tls import ascii_subject
from tests.kit.authority import Authority


class FileProperties(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.leaf = Authority().issue("a.example")

    def judge(self, cert: bytes, key: bytes) -> None:
        paths = [os.path.join(self.folder, name) for name in ("cert", "key")]
        for path, content in zip(paths, (cert, key), strict=True):
            with open(path, "wb") as file:
                file.write(content)
        for load in (lambda: load_pair(CertificateFiles(*paths)), lambda: load_ca(paths[0])):
            try:
                load()
            except CertificateFault as fault:
                self.assertTrue(fault.message.isprintable())
                self.assertNotIn(self.folder, str(fault))

    @given(st.binary(max_size=200), st.binary(max_size=200))
    @settings(max_examples=100, deadline=None)
    def test_anything(self, cert: bytes, key: bytes) -> None:
        """Any bytes are a certificate or a fault."""
        self.judge(cert, key)

    @given(st.data())
    @settings(max_examples=300, deadline=None)
    def test_damage(self, draw: st.DataObject) -> None:
        """A certificate or key that is damaged anywhere is still one, or a fault."""
        good = self.leaf.cert_pem, self.leaf.key_pem
        damaged = []
        for content in good:
            at = draw.draw(st.integers(0, len(content)))
            until = draw.draw(st.integers(at, min(len(content), at + 70)))
            alphabet = st.sampled_from(b"AZaz09+/=-\n \x00\xff").map(lambda byte: bytes([byte]))
            new = b"".join(draw.draw(st.lists(alphabet, max_size=8)))
            damaged.append(content[:at] + new + content[until:])
        self.judge(damaged[0], good[1])
        self.judge(good[0], damaged[1])


class HelloProperties(SynchronousTestCase):
    @given(st.one_of(st.binary(max_size=300), st.from_regex(rb"[A-Za-z0-9_.*-]{1,60}", fullmatch=True)))
    def test_names(self, asked: bytes) -> None:
        """A name is a host's in lower case, of what was asked for; or none."""
        name = normal_name(asked)
        if name:
            self.assertTrue(re.fullmatch(r"[a-z0-9_.-]{1,254}", name))
            self.assertEqual(asked.lower().removesuffix(b"."), name.encode())
            self.assertEqual(normal_name(name.encode()), name)

    @given(st.lists(st.binary(min_size=1, max_size=255), max_size=MOST_PROTOCOLS))
    def test_protocols(self, offered: list[bytes]) -> None:
        """All that a client offers is seen."""
        self.assertEqual(_protocols(b"".join(bytes([len(name)]) + name for name in offered)), set(offered))

    @given(st.binary(max_size=600))
    def test_any_protocols(self, text: bytes) -> None:
        """Any bytes are a bounded list of protocols."""
        self.assertLessEqual(len(_protocols(text)), MOST_PROTOCOLS)


class SubjectProperties(SynchronousTestCase):
    @given(st.text(alphabet=st.characters(exclude_characters="\\")))
    def test_subjects(self, name: str) -> None:
        """A subject is visible ASCII, and says no less than it did: two of them never become the same."""
        subject = ascii_subject(name)
        self.assertTrue(subject.isascii() and (subject.isprintable() or not subject))
        back = re.sub(r"\\([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), subject).encode("latin-1")
        self.assertEqual(back.decode("utf-8", "surrogatepass"), name)
