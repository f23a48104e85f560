"""HTTP/2 towards backends when everything happens at once: random backends, random clients, pieces of any size."""

from __future__ import annotations

import random

from h2.exceptions import ProtocolError

from tests.http.ends import answers
from tests.http.h2_backends import CHUNKED, GET, POST, H2Backend, H2RoadCase
from tests.http.road import Client, Road


class ChaosTests(H2RoadCase):
    def test_books_balance(self) -> None:
        """Whatever both sides do, each request is answered once or cut, and every lease, count and stream is given back."""
        for seed in range(60):
            rng = random.Random(seed)
            road = self.h2_road(2)
            road.largest = rng.choice((1, 7, 100, 65536))
            clients: list[Client] = []
            backends: dict[int, H2Backend] = {}
            for _ in range(40):
                self.act(rng, road, clients, backends)
            for backend in backends.values():
                self.finish(backend)
            road.run(70, 5.0)
            self.assertEqual(road.books.in_flight, 0, seed)
            for backend_ in road.backends:
                multiplexed = backend_.multiplexed
                streams = [each.codec.streams for each in (*multiplexed.connections, *multiplexed.full)]
                self.assertEqual([each for each in streams if each], [], seed)
                self.assertEqual(multiplexed.openings, [], seed)

    def act(self, rng: random.Random, road: Road, clients: list[Client], backends: dict[int, H2Backend]) -> None:
        """One thing happens."""
        for number, end in enumerate(road.upstream_ends):
            if number not in backends and end.is_open and end.transport.connected and rng.random() < 0.7:
                backends[number] = H2Backend(end, streams=rng.choice((1, 3, 100)))
        choice = rng.random()
        if choice < 0.4:
            clients.append(client := road.client())
            client.send(rng.choice((GET, POST, CHUNKED + b"3\r\nabc\r\n")))
        elif choice < 0.5 and clients:
            rng.choice(clients).reset()
        elif choice < 0.6:
            road.run(rng.choice((1.0, 20.0)), 1.0)
        elif backends:
            backend = rng.choice(list(backends.values()))
            streams = [stream for stream, _ in backend.requests]
            try:
                backend.go()
                if choice < 0.63:
                    backend.end.reset()
                elif choice < 0.68:
                    backend.connection.close_connection(last_stream_id=rng.choice([0, *streams]))
                    backend.go()
                elif streams and choice < 0.76:
                    backend.connection.reset_stream(rng.choice(streams), rng.choice((0, 2, 7, 8)))
                    backend.go()
                elif streams and choice < 0.86:
                    backend.head(rng.choice(streams))
                elif streams:
                    backend.answer(rng.choice(streams))
            except ProtocolError:
                pass  # what the library does not let it do

    def finish(self, backend: H2Backend) -> None:
        """Answer what can still be answered."""
        for stream, _ in backend.requests:
            try:
                backend.answer(stream)
            except ProtocolError:
                continue

    def test_cut_anywhere(self) -> None:
        """Answers that come byte by byte are the same answers."""
        road = self.h2_road()
        road.largest = 1
        client = road.client()
        client.send(POST)
        backend = self.backend(road)
        for stream in (1, 3):
            if stream == 3:
                client.send(POST)
                backend.go()
            backend.answer(stream, b"one by one", fields=[(b"x-a", b"b")])
            found, rest = answers(client.take(), [b"POST"])
            self.assertEqual((len(found), found[0].body, found[0].headers[b"x-a"], rest), (1, b"one by one", b"b", b""))
