"""The codec of HTTP/2 against the h2 library, in both roles, with any cuts, windows and orders; HPACK against hpack.

The library is peer and judge: it raises for whatever we may not say, and it knows what it has sent and got.
"""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hpack import Decoder as HpackDecoder
from hpack import Encoder as HpackEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import TestCase

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_books import CONNECTION_WINDOW
from lbsvc.http.h2_frames import ConnectionFault
from lbsvc.http.h2_hpack import Decoder, Pair, encode
from lbsvc.http.h2_streams import Stream
from tests.http.h2_sink import GET, OK, POST, Heard, data, head

QUICK = settings(max_examples=60, deadline=None, database=None)
STEPS = settings(max_examples=40, derandomize=True, stateful_step_count=40, deadline=None, database=None)

NAMES = st.sampled_from([b"a", b"accept", b"cookie", b"x-long-name", b"age", b"authorization", b":path", b"etag"])
VALUES = st.one_of(st.sampled_from([b"", b"/", b"gzip, deflate", b"x" * 300]), st.binary(max_size=40))
LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=12)
SIZES = st.one_of(st.integers(0, 40), st.integers(0, 40_000))
CHOICES = st.integers(0, 9)
#: Where what is fed is cut: pieces of so many bytes.
CUTS = st.sampled_from([1, 7, 9, 1000, 1 << 20])
TRAILERS: list[Pair] = [(b"x-sum", b"1")]


class HpackTests(TestCase):
    @QUICK
    @given(st.lists(st.tuples(LISTS, st.booleans(), st.sampled_from([None, 0, 60, 100, 4096])), max_size=6))
    def test_decoder(self, lists: list[tuple[list[Pair], bool, int | None]]) -> None:
        """What hpack encodes, with or without Huffman codes, whatever becomes of the table, is decoded alike."""
        theirs, ours = HpackEncoder(), Decoder(1 << 20)
        for fields, is_huffman, size in lists:
            if size is not None:
                theirs.header_table_size = size
            for _ in range(2):
                block = theirs.encode(fields, huffman=is_huffman)
                self.assertEqual(ours.decode(block), fields)

    @QUICK
    @given(st.lists(LISTS, max_size=4))
    def test_encoder(self, lists: list[list[Pair]]) -> None:
        """What we encode is decoded alike by hpack, and by us."""
        theirs, ours = HpackDecoder(), Decoder(1 << 20)
        for fields in lists:
            block = encode(fields)
            self.assertEqual([tuple(pair) for pair in theirs.decode(block, raw=True)], fields)
            self.assertEqual(ours.decode(block), fields)

    @settings(QUICK, max_examples=300)
    @given(st.lists(st.binary(max_size=60), max_size=4))
    def test_junk(self, blocks: list[bytes]) -> None:
        """Any bytes either mean what hpack says that they mean, or are COMPRESSION_ERROR."""
        theirs, ours = HpackDecoder(), Decoder(1 << 16)
        for block in blocks:
            try:
                found = ours.decode(block)
            except ConnectionFault as fault:
                self.assertEqual(fault.code, wire.COMPRESSION_ERROR)
                return
            self.assertEqual(found, [tuple(pair) for pair in theirs.decode(block, raw=True)])
            self.assertLessEqual(ours._size, 4096)


FRAMES = st.builds(
    wire.frame,
    st.one_of(st.integers(0, 9), st.sampled_from([16, 99])),
    st.one_of(st.sampled_from([0, 1, 4, 5, 8, 0x2D]), st.integers(0, 255)),
    st.sampled_from([0, 1, 1, 2, 3, 5]),
    st.one_of(st.sampled_from([b"", encode(GET), b"\0\0\0\1", b"\0\0\0\0", bytes(8)]), st.binary(max_size=20)),
)


class JunkTests(TestCase):
    @settings(QUICK, max_examples=400)
    @given(st.lists(FRAMES, max_size=12), st.booleans(), CUTS)
    def test_frames(self, said: list[bytes], is_client: bool, cut: int) -> None:
        """Any frames in any order are taken, or are a fault of the connection; each stream has one end and one begin."""
        heard = Heard(is_client).greet()
        if is_client:
            heard.begin(GET, False)
            heard.codec.out.clear()
        raw = b"".join(said)
        heard.feed(*[raw[at : at + cut] for at in range(0, len(raw), cut)])
        over: set[int] = set()
        begun: set[int] = set()
        for kind, *rest in heard.events:
            if kind in ("headers", "data", "trailers", "reset"):
                number = rest[0]
                self.assertNotIn(number, over)
                self.assertTrue(kind == "headers" or is_client or number in begun)
                begun.add(number)
                if kind in ("trailers", "reset") or (kind in ("headers", "data") and rest[2]):
                    over.add(number) if kind == "reset" else None
        for stream in heard.codec.streams.values():
            self.assertFalse(stream.is_over)
            self.assertGreaterEqual(stream.receive_window, 0)

    @settings(QUICK, max_examples=200)
    @given(st.binary(max_size=100), CUTS)
    def test_bytes(self, raw: bytes, cut: int) -> None:
        """Any bytes at all are taken or a fault, and cutting them changes neither events nor ends."""
        whole, pieces = Heard().greet(), Heard().greet()
        self.assertEqual(whole.feed(raw), pieces.feed(*[raw[at : at + cut] for at in range(0, len(raw), cut)]))
        self.assertEqual(whole.events, pieces.events)


class Conversation(RuleBasedStateMachine):
    """We and the h2 library: who plays which role is drawn; both send messages, take them, and reset."""

    @initialize(is_client=st.booleans(), cut=CUTS, window=st.sampled_from([0, 1, 100, 65535, 100_000]))
    def meet(self, is_client: bool, cut: int, window: int) -> None:
        self.cut = cut
        self.is_client = is_client
        self.heard = Heard(is_client)
        self.peer = H2Connection(H2Configuration(client_side=not is_client, header_encoding=None))
        self.peer.initiate_connection()
        self.streams: dict[int, Stream] = {}
        self.sent: dict[int, bytearray] = {}  # by us
        self.got: dict[int, bytearray] = {}
        self.their_sent: dict[int, bytearray] = {}
        self.their_got: dict[int, bytearray] = {}
        self.open_out: set[int] = set()  # we go on
        self.their_open: set[int] = set()
        self.headed: set[int] = set()
        self.over: set[int] = set()
        self.answered: set[int] = set()
        self.exchange()
        self.they_set(window)

    def exchange(self) -> None:
        """Everything that is on its way arrives."""
        while True:
            theirs = self.peer.data_to_send()
            for at in range(0, len(theirs), self.cut):
                self.heard.codec.feed(theirs[at : at + self.cut])
            for event in self.heard.heard():
                self.hear(event)
            ours = self.heard.codec.take()
            self.heard.codec.pump()
            for found in self.peer.receive_data(ours):
                self.they_hear(found)
            if not theirs and not ours:
                return

    def hear(self, event: tuple[Any, ...]) -> None:
        kind, number, *rest = event
        if kind == "headers":
            self.streams[number] = self.heard.streams[number]
            self.headed.add(number)
            self.got.setdefault(number, bytearray())
            if not self.is_client:
                self.sent.setdefault(number, bytearray())
                self.open_out.add(number)
        elif kind == "data":
            assert number in self.headed and number not in self.over
            self.got[number] += rest[0]
        elif kind == "reset":
            assert not rest[1], "we have found fault with the library"
            self.end(number)

    def they_hear(self, found: Event) -> None:
        assert not isinstance(found, InformationalResponseReceived)
        if isinstance(found, RequestReceived):
            self.their_open.add(found.stream_id)
            self.their_sent[found.stream_id] = bytearray()
        if isinstance(found, RequestReceived | ResponseReceived):
            self.their_got.setdefault(found.stream_id, bytearray())
        elif isinstance(found, DataReceived):
            self.their_got[found.stream_id] += found.data
            if found.stream_id not in self.over and found.flow_controlled_length:
                self.peer.acknowledge_received_data(found.flow_controlled_length, found.stream_id)
        elif isinstance(found, StreamReset):
            self.end(found.stream_id)
        elif isinstance(found, StreamEnded):
            assert bytes(self.their_got[found.stream_id]) == bytes(self.sent[found.stream_id])
        else:
            assert not isinstance(found, TrailersReceived) or found.headers == TRAILERS

    def end(self, number: int) -> None:
        self.over.add(number)
        self.open_out.discard(number)
        self.their_open.discard(number)

    def pick(self, numbers: set[int], choice: int) -> int:
        return sorted(numbers)[choice % len(numbers)]

    @rule(ended=st.booleans())
    def request(self, ended: bool) -> None:
        """The client begins a stream."""
        if self.is_client:
            if not self.heard.codec.has_room:
                return
            stream = self.heard.begin(GET if ended else POST, ended)
            self.streams[stream.id] = stream
            self.sent[stream.id], self.got[stream.id] = bytearray(), bytearray()
            if not ended:
                self.open_out.add(stream.id)
        else:
            if self.peer.open_outbound_streams >= 100:
                return
            number = self.peer.get_next_available_stream_id()
            self.their_sent[number] = bytearray()
            self.peer.send_headers(number, GET if ended else POST, end_stream=ended)
            if not ended:
                self.their_open.add(number)
        self.exchange()

    @precondition(lambda self: self.open_out)
    @rule(choice=CHOICES, size=SIZES, ended=st.booleans(), is_trailed=st.booleans())
    def send(self, choice: int, size: int, ended: bool, is_trailed: bool) -> None:
        """We send some of a body."""
        number = self.pick(self.open_out, choice)
        stream = self.streams[number]
        if not self.is_client and number not in self.answered:
            self.answered.add(number)
            self.heard.codec.send_headers(stream, OK, False)
        piece = bytes([size % 251]) * size
        self.sent[number] += piece
        # The library takes an empty frame for a fault where a window has become less than nothing (lawful: RFC 9113, 6.9).
        is_trailed = is_trailed or stream.send_window - len(piece) < 0
        self.heard.codec.send_data(stream, piece, ended, TRAILERS if ended and is_trailed else None)
        if ended:
            self.open_out.discard(number)
        self.exchange()

    @precondition(lambda self: self.their_open)
    @rule(choice=CHOICES, size=SIZES, ended=st.booleans(), padding=st.sampled_from([None, 0, 1, 255]))
    def they_send(self, choice: int, size: int, ended: bool, padding: int | None) -> None:
        """The library sends some, as far as windows go."""
        number = self.pick(self.their_open, choice)
        if self.is_client and number not in self.answered:
            self.answered.add(number)
            self.peer.send_headers(number, OK)
        room = self.peer.local_flow_control_window(number) - (0 if padding is None else padding + 1)
        size = min(size, room, 16000)
        if size >= 0:
            piece = bytes([size % 251]) * size
            self.their_sent[number] += piece
            self.peer.send_data(number, piece, end_stream=ended, pad_length=padding)
            if ended:
                self.their_open.discard(number)
        self.exchange()

    @precondition(lambda self: self.streams)
    @rule(choice=CHOICES)
    def consume(self, choice: int) -> None:
        """We take everything that has come of a stream."""
        stream = self.streams[self.pick(set(self.streams), choice)]
        self.heard.codec.consume(stream, 65535 - stream.receive_window - stream.credit)
        self.exchange()

    @precondition(lambda self: self.heard.codec.streams)
    @rule(choice=CHOICES)
    def reset(self, choice: int) -> None:
        """We give a stream up."""
        number = self.pick(set(self.heard.codec.streams), choice)
        self.heard.codec.reset(self.streams[number], wire.CANCEL)
        self.end(number)
        self.exchange()

    @precondition(lambda self: self.their_open)
    @rule(choice=CHOICES)
    def they_reset(self, choice: int) -> None:
        """The library does."""
        number = self.pick(self.their_open, choice)
        self.peer.reset_stream(number, wire.CANCEL)
        self.end(number)
        self.exchange()

    def they_set(self, window: int) -> None:
        self.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.exchange()

    @rule(window=st.sampled_from([0, 1, 1000, 65535, 1 << 20]))
    def resize(self, window: int) -> None:
        """The library changes the windows of its streams."""
        self.they_set(window)

    @rule(is_stalled=st.booleans())
    def stall(self, is_stalled: bool) -> None:
        """Our transport takes no more, or goes on."""
        self.heard.codec.is_stalled = is_stalled
        self.exchange()

    @invariant()
    def books_balance(self) -> None:
        """Windows add up, what has come is what was sent, and what was taken by a side was said by the other."""
        codec = self.heard.codec
        held = 0
        for stream in codec.streams.values():
            taken = 65535 - stream.receive_window - stream.credit
            assert 0 <= taken <= 65535
            held += taken
            assert stream.queued == sum(map(len, stream.queue))
        assert codec.receive_window + codec._credit + held == CONNECTION_WINDOW
        assert set(codec._waiting) <= set(codec.streams.values())
        for number, got in self.got.items():
            if number not in self.over:
                assert bytes(got) == bytes(self.their_sent[number])
        for number, got in self.their_got.items():
            assert self.sent[number].startswith(bytes(got))

    def teardown(self) -> None:
        """When all windows are open everything arrives."""
        if not hasattr(self, "heard"):
            return
        self.heard.codec.is_stalled = False
        self.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
        self.exchange()
        for number, stream in self.heard.codec.streams.items():
            assert not stream.queued
            if number in self.their_got:
                assert bytes(self.their_got[number]) == bytes(self.sent[number])


class ConversationTests(TestCase):
    def test_conversation(self) -> None:
        """Whatever both say, cut as you like: no fault is found, everything arrives, and the books balance."""
        run_state_machine_as_test(Conversation, settings=STEPS)


class TwoOfUsTests(TestCase):
    @QUICK
    @given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=8), CUTS)
    def test_both_roles(self, sizes: list[tuple[int, int]], cut: int) -> None:
        """Our client and our server understand each other: bodies arrive whole both ways, and nothing is left."""
        client, server = Heard(True), Heard()
        for size, _ in sizes:
            client.codec.send_data(client.begin(POST, False), bytes(size), True)
        came = {True: 0, False: 0}
        while True:
            moved = False
            for one, other, is_up in ((client, server, True), (server, client, False)):
                one.codec.pump()
                raw = one.codec.take()
                moved = moved or bool(raw)
                for at in range(0, len(raw), cut):
                    other.codec.feed(raw[at : at + cut])
                for kind, number, *rest in other.heard():
                    if kind != "data":
                        continue
                    came[is_up] += len(rest[0])
                    stream = other.streams[number]
                    other.codec.consume(stream, len(rest[0]))
                    if rest[1] and is_up:
                        other.codec.send_headers(stream, OK, False)
                        other.codec.send_data(stream, bytes(sizes[number // 2][1]), True, TRAILERS)
            if not moved:
                break
        self.assertEqual(came, {True: sum(up for up, _ in sizes), False: sum(down for _, down in sizes)})
        self.assertEqual((client.codec.streams, server.codec.streams), ({}, {}))

    def test_frames_by_hand(self) -> None:
        """The frames that other tests write are what the h2 library reads."""
        peer = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        events = peer.receive_data(wire.PREFACE + wire.settings({}) + head(1, False) + data(1, b"abc", True))
        self.assertEqual([type(each) for each in events[-3:]], [RequestReceived, DataReceived, StreamEnded])
