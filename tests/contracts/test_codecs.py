"""The seam of the codecs: a stream means the same whole, byte by byte, in two pieces anywhere, and at random cuts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from twisted.trial.unittest import TestCase

from tests.http import answers, corpus
from tests.http.recording import Told, bytewise, cut, difference, read_requests, read_response

#: Streams this long are not tried at each of their cuts, but at a number of random ones.
LONG = 300


def requests() -> Iterator[tuple[str, bytes]]:
    for name, (stream, _) in (corpus.REFUSED | corpus.PASSED).items():
        yield name, stream
        # behind a request that is right, on the same connection and with the memory of its head
        yield f"{name}, second", corpus.get(b"A: b") + stream
        yield f"{name}, twice", stream * 2


def ways(stream: bytes, rng: random.Random) -> Iterator[list[bytes]]:
    """The stream in pieces, in many ways."""
    yield bytewise(stream)
    size = len(stream)
    places = range(1, size) if size < LONG else sorted(rng.randrange(1, size) for _ in range(30))
    yield from (cut(stream, [place]) for place in places)
    for _ in range(10):
        yield cut(stream, [rng.randrange(size + 1) for _ in range(rng.randrange(2, 9))])


class CodecContract(TestCase):
    def compare(self, name: str, stream: bytes, read: Callable[[list[bytes]], Told]) -> None:
        rng = random.Random(name)
        whole = read([stream])
        for pieces in ways(stream, rng):
            found = difference(whole, read(pieces))
            self.assertIsNone(found, f"{name} {pieces}: {found}")

    def test_requests(self) -> None:
        """Each stream of requests of the corpus gives the same calls, or the same refusal, at every cut."""
        for name, stream in requests():
            self.compare(name, stream, read_requests)

    def test_refused_answers(self) -> None:
        """Each answer of the corpus that is nonsense is so at every cut, whatever was asked."""
        for name, stream in answers.REFUSED.items():
            for method in (b"GET", b"HEAD"):
                self.compare(name, stream, lambda pieces, method=method: read_response(pieces, method))  # type: ignore[misc]

    def test_answers(self) -> None:
        """Each lawful answer of the corpus gives the same calls at every cut, whatever was asked."""
        for name, (_, stream, _, _) in answers.PASSED.items():
            for method in (b"GET", b"HEAD", b"POST"):
                self.compare(name, stream, lambda pieces, method=method: read_response(pieces, method))  # type: ignore[misc]

    def test_switches(self) -> None:
        """A switch of protocols is told alike at every cut, with what follows it, or is refused alike."""
        passed = {name: stream for name, (stream, _) in answers.PASSED_SWITCHES.items()}
        for name, stream in (answers.REFUSED_SWITCHES | passed).items():
            for upgrade in (True, False):
                self.compare(
                    name,
                    stream,
                    lambda pieces, upgrade=upgrade: read_response(pieces, upgrade=upgrade),  # type: ignore[misc]
                )

    def test_a_refusal_comes_at_the_same_byte(self) -> None:
        """Byte by byte, nothing that is refused as a whole is ever told as a whole message first."""
        for name, (stream, status) in corpus.REFUSED.items():
            told = read_requests(bytewise(stream))
            self.assertEqual(told.status, status, name)
            self.assertEqual(len(told.whole), len(read_requests([stream]).whole), name)
