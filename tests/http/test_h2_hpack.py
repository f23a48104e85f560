"""HPACK: the examples of RFC 7541, everything that is to be refused, and bounds of what a peer can make us keep."""

from __future__ import annotations

import tracemalloc

from hpack import Decoder as Judge
from twisted.trial.unittest import TestCase

from lbsvc.http.h2_frames import COMPRESSION_ERROR, ConnectionFault
from lbsvc.http.h2_hpack import Decoder, Pair, encode

REQUEST: list[Pair] = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/"),
    (b":authority", b"www.example.com"),
]
SECURE: list[Pair] = [
    *[(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html")],
    *[(b":authority", b"www.example.com"), (b"custom-key", b"custom-value")],
]
DATE = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
LATER = (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT")
PRIVATE, LOCATION = (b"cache-control", b"private"), (b"location", b"https://www.example.com")
COOKIE = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
ANSWERS: list[list[Pair]] = [
    [(b":status", b"302"), PRIVATE, DATE, LOCATION],
    [(b":status", b"307"), PRIVATE, DATE, LOCATION],
    [(b":status", b"200"), PRIVATE, LATER, LOCATION, (b"content-encoding", b"gzip"), COOKIE],
]

#: RFC 7541, C.3, C.4: requests; C.5, C.6: answers with a table of 256 bytes: blocks with and without Huffman codes.
REQUESTS = [
    [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ],
    [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ],
]
RESPONSES = [
    [
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
        "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
        "4803333037c1c0bf",
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d41"
        "53444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
    ],
    [
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960"
        "d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ],
]


class VectorTests(TestCase):
    def test_single_fields(self) -> None:
        """C.2: each way to write a field; only the first enters the table."""
        for block, pair, entries in (
            ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header"), 1),
            ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), 0),
            ("100870617373776f726406736563726574", (b"password", b"secret"), 0),
            ("82", (b":method", b"GET"), 0),
        ):
            decoder = Decoder(1000)
            self.assertEqual(decoder.decode(bytes.fromhex(block)), [pair])
            self.assertEqual(len(decoder._table), entries)

    def test_requests(self) -> None:
        """C.3 and C.4: three requests of one connection, with the table's size after each."""
        lists = [REQUEST, [*REQUEST, (b"cache-control", b"no-cache")], SECURE]
        for blocks in REQUESTS:
            decoder = Decoder(1000)
            sizes = []
            for block, fields in zip(blocks, lists, strict=True):
                self.assertEqual(decoder.decode(bytes.fromhex(block)), fields)
                sizes.append(decoder._size)
            self.assertEqual(sizes, [57, 110, 164])

    def test_answers(self) -> None:
        """C.5 and C.6: answers that evict each other's fields from a table of 256 bytes."""
        for blocks in RESPONSES:
            decoder = Decoder(1000, 256)
            sizes = []
            for block, fields in zip(blocks, ANSWERS, strict=True):
                self.assertEqual(decoder.decode(bytes.fromhex(block)), fields)
                sizes.append(decoder._size)
            self.assertEqual(sizes, [222, 222, 215])


class RefusedTests(TestCase):
    def test_refused(self) -> None:
        """What no encoder may send is COMPRESSION_ERROR."""
        for block, why in (
            ("80", "index 0"),
            ("be", "an index beyond the static table, where the dynamic one is empty"),
            ("ff80808001", "an index far away"),
            ("ffffffffffffff01", "an integer without end"),
            ("ff", "an integer that is cut"),
            ("40", "a literal without a name"),
            ("4001", "a name that is cut"),
            ("400161", "no value"),
            ("40016105", "a value that is cut"),
            ("7e0161", "a literal whose name's index stands for nothing"),
            ("823f00", "another size of the table behind a field"),
            ("3fe21f", "a size of 4097, where 4096 is allowed"),
            ("20203fe11f", "three sizes of the table"),
            ("0081ff0161", "a Huffman code of nothing but EOS's beginning, a byte long"),
            ("0082ffff0161", "the same, two bytes long"),
            ("0084ffffffff0161", "EOS itself"),
            ("0082000061", "padding that is no beginning of EOS"),
        ):
            fault = self.assertRaises(ConnectionFault, Decoder(1000).decode, bytes.fromhex(block))
            self.assertEqual(fault.code, COMPRESSION_ERROR, why)

    def test_cut_anywhere(self) -> None:
        """A block that is cut means either less fields, or COMPRESSION_ERROR, and never anything else."""
        block = bytes.fromhex(RESPONSES[1][0])
        whole = ANSWERS[0]
        for at in range(len(block)):
            try:
                found = Decoder(1000).decode(block[:at])
            except ConnectionFault:
                continue
            self.assertEqual(found, whole[: len(found or [])], at)


class TableTests(TestCase):
    def test_sizes(self) -> None:
        """A table that is made smaller forgets its oldest fields; made larger again it is empty of them."""
        decoder = Decoder(1000)
        decoder.decode(bytes.fromhex("40016101624001630164"))  # a: b, then c: d
        self.assertEqual(decoder.decode(b"\xbe\xbf"), [(b"c", b"d"), (b"a", b"b")])
        decoder.decode(b"\x3f\x09\x3f\xe1\x1f")  # 40 bytes, then 4096
        self.assertEqual(decoder.decode(b"\xbe"), [(b"c", b"d")])
        self.assertRaises(ConnectionFault, decoder.decode, b"\xbf")

    def test_entry_larger_than_the_table(self) -> None:
        """A field that does not fit empties the table, and is no fault (4.4)."""
        decoder = Decoder(10000)
        decoder.decode(bytes.fromhex("4001610162"))
        decoder.decode(b"\x40\x01x\x7f\x81\x1f" + bytes(4096))
        self.assertEqual((len(decoder._table), decoder._size), (0, 0))

    def test_repeats(self) -> None:
        """A block that is met again means what it means now, after the table has changed."""
        decoder = Decoder(1000)
        decoder.decode(bytes.fromhex("4001610162"))
        self.assertEqual(decoder.decode(b"\xbe"), [(b"a", b"b")])
        self.assertIs(decoder.decode(b"\xbe"), decoder.decode(b"\xbe"))
        decoder.decode(bytes.fromhex("4001630164"))
        self.assertEqual(decoder.decode(b"\xbe"), [(b"c", b"d")])

    def test_repeated_insertion(self) -> None:
        """A block that enters fields enters them each time."""
        decoder = Decoder(1000)
        for count in (1, 2, 3):
            decoder.decode(bytes.fromhex("4001610162"))
            self.assertEqual(len(decoder._table), count)


class BoundTests(TestCase):
    def test_longest(self) -> None:
        """A list is counted with 32 bytes for each field; one that is too long is nothing, and its table stays right."""
        decoder = Decoder(2 * 34)
        self.assertEqual(decoder.decode(b"\x00\x01a\x01b" * 2), [(b"a", b"b")] * 2)
        self.assertIs(decoder.decode(b"\x00\x01a\x01b" * 2 + b"\x40\x01c\x01d"), None)
        self.assertEqual(decoder.decode(b"\xbe"), [(b"c", b"d")])

    def test_price(self) -> None:
        """A block of many fields has a price, be they in the list or beyond it; others have none."""
        for longest, count, least in ((40_000, 256, 0.0), (40_000, 800, 17.0), (1000, 2000, 55.0), (68, 3, 1.0)):
            decoder = Decoder(longest)
            decoder.decode(b"\x10\x00\x00" * count)
            self.assertTrue(least <= decoder.price <= least * 1.1, (count, decoder.price))

    def test_bomb(self) -> None:
        """A field of 4000 bytes, asked for 16000 times by its index, makes no list of 64 MB."""
        decoder = Decoder(16384)
        decoder.decode(b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000)
        tracemalloc.start()
        try:
            self.assertIs(decoder.decode(b"\xbe" * 16000), None)
            self.assertLess(tracemalloc.get_traced_memory()[1], 200_000)
        finally:
            tracemalloc.stop()

    def test_memory(self) -> None:
        """Neither thousands of different blocks nor of fields are remembered."""
        decoder = Decoder(16384)
        for number in range(10_000):
            decoder.decode(b"\x00\x01a\x05%05d" % number)
        self.assertLessEqual(len(decoder._memory), 64)
        for number in range(5000):
            encode([(b"a", b"%05d" % number)])
        from lbsvc.http import h2_hpack

        self.assertLessEqual(len(h2_hpack._remembered), 1024)


class EncoderTests(TestCase):
    def test_lists(self) -> None:
        """What is encoded is decoded by the hpack library, twice alike, whatever its lengths."""
        fields: list[Pair] = [
            *[(b":status", b"200"), (b":status", b"299"), (b"x-long", b"y" * 5000), (b"z" * 200, b"")],
            *[(b"set-cookie", b"a=b"), (b"x-request-id", b"1"), (b"accept-encoding", b"gzip, deflate"), (b"age", b"")],
            *[(b"n" * size, b"v" * size) for size in (126, 127, 128, 254, 255, 256)],
        ]
        for _ in range(2):
            self.assertEqual([tuple(pair) for pair in Judge().decode(encode(fields), raw=True)], fields)

    def test_secrets(self) -> None:
        """Fields that are secret are marked: nobody further on may put them into a table (7.1.3)."""
        for name in (b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"):
            self.assertEqual(encode([(name, b"secret")])[0] & 0xF0, 0x10)
        self.assertEqual(encode([(b"accept", b"*/*")])[0] & 0xF0, 0)
