"""Header lists as HPACK has them (RFC 7541): a decoder with its table, and an encoder that needs none.

Promises: a decoder takes what any lawful encoder sends, refuses everything else with ConnectionFault
(COMPRESSION_ERROR), and holds no more than `table_size` bytes of table and `longest` of one list, both counted as 4.1
counts; a list that is longer is decoded on for the table's sake, and not kept (`decode` gives None). The encoder sends
literals without indexing, static names by their number and no Huffman code, as HAProxy does: it has no state, so that a
field that was met before costs one look-up, and nobody can learn from sizes what others have sent (RFC 7541, 7.1).
Called by h2_codec.py. Pure, but for bounded memories.

Where the time goes (tests/bench/h2_cost.py): a block that consists of indices only, as repeated requests do, is
remembered until the table changes; Huffman strings are decoded by the `hpack` library.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from lbsvc.http.h2_frames import COMPRESSION_ERROR, ConnectionFault

#: Name and value.
Pair = tuple[bytes, bytes]

#: What each entry of a table or list costs beside its bytes (RFC 7541, 4.1).
OVERHEAD: Final = 32
#: The size of a table that everybody begins with.
TABLE_SIZE: Final = 4096

_STATIC: Final[tuple[Pair, ...]] = tuple(HeaderTable.STATIC_TABLE)
_STATIC_SIZE: Final = len(_STATIC)
#: Changes of a table's size that one block may begin with (RFC 7541, 4.2): the least of them all, and the last.
_MOST_CHANGES: Final = 2
#: Fields that a block may mean at no price; and how many more of them cost as much as a frame does, about 4 µs.
CHEAP: Final = 256
FIELDS_PRICED: Final = 32
#: An integer takes so many bytes at most: nothing that is lawful here needs more than four.
_MOST_INTEGER: Final = 5

#: Fields that are remembered encoded, by all connections; blocks, by each; and the longest of either, in bytes.
_MEMORY: Final = 1024
_MEMORY_BLOCKS: Final = 64
_MEMORY_SIZE: Final = 128


def _broken(detail: str) -> ConnectionFault:
    return ConnectionFault(COMPRESSION_ERROR, detail)


class Decoder:
    """What one side of a connection decodes with."""

    def __init__(self, longest: int, table_size: int = TABLE_SIZE) -> None:
        self.longest = longest
        self.cheap = CHEAP
        self.price = 0.0  # of the last block that was not cheap, in frames: for whoever has asked for it to clear
        self.crossed = b""  # the name of the field by which the last list that was too long became so
        self._allowed = table_size  # what we have told the other side that its table may be
        self._limit = table_size  # what it has chosen
        self._table: deque[Pair] = deque()  # the newest first
        self._size = 0
        #: blocks that have changed nothing -> what they mean, while the table is as it is
        self._memory: dict[bytes, list[Pair] | None] = {}
        self._changes = 0

    def decode(self, block: bytes) -> list[Pair] | None:
        """The fields of a whole block, in order, not to be changed; None for a list that is longer than `longest`.

        Raises ConnectionFault, after which the table means nothing.
        """
        known = self._memory.get(block)
        if known is not None:
            return known
        changes = self._changes
        found = self._read(block)
        if found is not None and self._changes == changes and len(block) <= _MEMORY_SIZE:
            if len(self._memory) >= _MEMORY_BLOCKS:
                self._memory.clear()
            self._memory[block] = found
        return found

    def _read(self, block: bytes) -> list[Pair] | None:
        fields: list[Pair] = []
        left = self.longest
        changes = surplus = 0
        at, end = 0, len(block)
        try:
            while at < end:
                first = block[at]
                if first >= 0x80:  # an index (6.1)
                    if first < 0xFF:
                        index, at = first & 0x7F, at + 1
                    else:
                        index, at = _read_integer(block, at, 7)
                    pair = self._entry(index)
                elif first & 0xE0 == 0x20:  # another size of the table (6.3)
                    size, at = _read_integer(block, at, 5)
                    changes += 1
                    if fields or left != self.longest or size > self._allowed or changes > _MOST_CHANGES:
                        raise _broken("a change of the table's size where, or to what, it may not be")
                    self._limit = size
                    self._evict(0)
                    continue
                else:  # a literal (6.2)
                    index, at = _read_integer(block, at, 6 if first & 0x40 else 4)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, at = _read_string(block, at)
                    value, at = _read_string(block, at)
                    pair = (name, value)
                    if first & 0x40:
                        self._insert(pair)
                left -= len(pair[0]) + len(pair[1]) + OVERHEAD
                if left >= 0:
                    fields.append(pair)
                else:
                    surplus += 1
                    if left + len(pair[0]) + len(pair[1]) + OVERHEAD >= 0:
                        self.crossed = pair[0]
        except IndexError:
            raise _broken("a header block that ends in the middle") from None
        except HPACKDecodingError:
            raise _broken("a Huffman code that is none") from None
        if surplus or len(fields) > self.cheap:
            self.price = 1.0 + max(len(fields) + surplus - self.cheap, 0) / FIELDS_PRICED
        return fields if left >= 0 else None

    def _entry(self, index: int) -> Pair:
        if 0 < index <= _STATIC_SIZE:
            return _STATIC[index - 1]
        index -= _STATIC_SIZE + 1
        if not 0 <= index < len(self._table):
            raise _broken("an index that stands for nothing")
        return self._table[index]

    def _insert(self, pair: Pair) -> None:
        size = len(pair[0]) + len(pair[1]) + OVERHEAD
        self._evict(size)
        if size <= self._limit:
            self._table.appendleft(pair)
            self._size += size

    def _evict(self, room: int) -> None:
        """Make room for so many bytes."""
        self._changes += 1
        self._memory.clear()
        table = self._table
        while table and self._size + room > self._limit:
            name, value = table.pop()
            self._size -= len(name) + len(value) + OVERHEAD


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """RFC 7541, 5.1: the number, and where the next thing begins."""
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    for shift in range(0, 7 * _MOST_INTEGER, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _broken("an integer without end")


def _read_string(block: bytes, at: int) -> tuple[bytes, int]:
    """RFC 7541, 5.2."""
    first = block[at]
    size = first & 0x7F
    if size < 0x7F:
        at += 1
    else:
        size, at = _read_integer(block, at, 7)
    end = at + size
    if end > len(block):
        raise _broken("a header block that ends in the middle")
    raw = block[at:end]
    if first < 0x80:
        return raw, end
    return decode_huffman(raw), end


# Encoding

_NAMES: Final[dict[bytes, int]] = {}
for _index, (_name, _value) in enumerate(_STATIC, 1):
    _NAMES.setdefault(_name, _index)
_WHOLE: Final[dict[Pair, bytes]] = {pair: bytes([0x80 | index]) for index, pair in enumerate(_STATIC, 1)}
#: What goes between proxies only by name, so that no hop further on puts it into a table (RFC 7541, 7.1.3).
_SENSITIVE: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"})

_remembered: dict[Pair, bytes] = {}


def encode(fields: Iterable[Pair]) -> bytes:
    """A header block; the names are in lower case."""
    recall = _remembered.get
    return b"".join([recall(pair) or _encode_field(pair) for pair in fields])


def _encode_field(pair: Pair) -> bytes:
    whole = _WHOLE.get(pair)
    if whole is not None:
        return whole
    name, value = pair
    index = _NAMES.get(name, 0)
    is_secret = name in _SENSITIVE
    made = _write_integer(index, 4, 0x10 if is_secret else 0x00)
    if not index:
        made += _write_integer(len(name), 7, 0) + name
    made += _write_integer(len(value), 7, 0) + value
    if not is_secret and name != b"x-request-id" and len(made) <= _MEMORY_SIZE:
        if len(_remembered) >= _MEMORY:
            _remembered.clear()
        _remembered[pair] = made
    return made


def _write_integer(value: int, bits: int, first: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    made = bytearray([first | most])
    value -= most
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
