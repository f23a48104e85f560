"""What the parent and its workers say to each other, and how that is written.

Promises: a message is one msgspec Struct of `Order` (to a worker) or `Answer` (from one), as MessagePack with the name of
its kind; `settings` are the frozen values of config/schema.py, pickled: both ends are the same program, started by the
parent, and nobody else holds an end of the channel (net/channel.py). Descriptors go beside a message: those of `Given`, in
its order. What belongs together has a `number`. Seconds.

Decision (2026-11-22): values are pickled in one field of a typed message, rather than read from the file again by each
worker: a file may have changed meanwhile, takes seconds where it is large, and has no run-time changes in it.
"""

from __future__ import annotations

import pickle
from io import BytesIO
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

from lbsvc.config.schema import Settings
from lbsvc.errors import Mistake
from lbsvc.workers.reports import Report

#: (did it pass, wall clock time, in words)
LastCheck: TypeAlias = tuple[bool, float, str]


class Verdict(msgspec.Struct, array_like=True, frozen=True):
    """How a backend is, as the parent's checks have found it."""

    pool: str
    backend: str
    address: str
    health: str
    last_check: LastCheck | None


class Message(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """Any of them."""


# -- to a worker


class Begin(Message, frozen=True):
    """The first: who it is, and what it lives by. Listening sockets have come before (`Given`)."""

    worker: int  # its place, from 1
    workers: int
    settings: bytes
    verdicts: list[Verdict]
    names: dict[str, list[str]]  # host -> addresses, of those that have been looked up


class Given(Message, frozen=True):
    """Listening sockets, one descriptor for each of these, for the next `Begin` or `Prepare`: whose bind, and which of those
    that are written alike (port 0), in the order in which they are opened."""

    binds: list[tuple[str, int]]


class Accept(Message, frozen=True):
    """Serve, from now on; said once, when it is `Ready`, or later, while another process is to accept. One that leaves
    before has never accepted anybody."""


class Prepare(Message, frozen=True):
    """Get ready for other settings; answered with `Prepared`."""

    number: int
    workers: int
    settings: bytes


class Commit(Message, frozen=True):
    """Live by them; answered with `Committed`. `drains` are (pool, backend, seconds or no limit) of what is removed."""

    number: int
    drains: list[tuple[str, str, float | None]]


class Abandon(Message, frozen=True):
    """They are not going to be."""

    number: int


class Checked(Message, frozen=True):
    """What checks have found."""

    verdicts: list[Verdict]


class Named(Message, frozen=True):
    """What a name stands for now; no addresses: it could not be looked up yet."""

    host: str
    addresses: list[str]


class Ask(Message, frozen=True):
    """Say how you are; answered with `Reported`."""

    number: int


class Hurry(Message, frozen=True):
    """Those that leave a pool under a name may take so long from now on."""

    pool: str
    backend: str
    seconds: float | None


class Found(Message, frozen=True):
    """Both ways: a worker has found a backend out; `what` is circuit or ejection."""

    pool: str
    backend: str
    address: str
    what: str


class Tallied(Message, frozen=True):
    """Both ways: what has been taken of limits that are counted together (workers/tallies.py); `worker` is whose."""

    worker: int
    values: list[Any]


class Forget(Message, frozen=True):
    """A worker is gone, and what it had told of itself."""

    worker: int


class Joined(Message, frozen=True):
    """There is another worker, which has heard nothing yet."""


class Watch(Message, frozen=True):
    """Tell of the access records of one listener whose user agent is this; "" ends it."""

    listener: str
    agent: bytes


class Reopen(Message, frozen=True):
    """Log files may have been renamed."""


class Leave(Message, frozen=True):
    """Stop accepting, finish what there is within `timeout`, and end. `is_gentle`: others serve on, so idle connections are
    answered once more."""

    timeout: float
    is_gentle: bool


class End(Message, frozen=True):
    """No more waiting."""


# -- from a worker


class Ready(Message, frozen=True):
    """It has begun, with all that it needs: it serves when it is told to `Accept`."""


class Resigned(Message, frozen=True):
    """It was sent TERM, and goes on until it is told to leave."""


class Refused(Message, frozen=True):
    """It could not begin."""

    mistakes: list[tuple[str, str]]  # key and words


class Prepared(Message, frozen=True):
    """With mistakes: it could not, and nothing of it is left."""

    number: int
    mistakes: list[tuple[str, str]]


class Committed(Message, frozen=True):
    """It does."""

    number: int


class Reported(Message, frozen=True):
    """What has been counted since the last report."""

    number: int
    report: Report


class Happened(Message, frozen=True):
    """An event, as its line of JSON."""

    line: bytes


class Witnessed(Message, frozen=True):
    """An access record that was asked for."""

    record: list[Any]


Order: TypeAlias = (
    Begin | Given | Accept | Prepare | Commit | Abandon | Checked | Named | Ask | Hurry | Found | Tallied | Forget | Joined
    | Watch | Reopen | Leave | End
)  # fmt: skip
Answer: TypeAlias = (
    Ready | Resigned | Refused | Prepared | Committed | Reported | Happened | Witnessed | Found | Tallied
)  # fmt: skip

_encoder: Final = msgspec.msgpack.Encoder()
_orders: Final = msgspec.msgpack.Decoder(Order)
_answers: Final = msgspec.msgpack.Decoder(Answer)


def encode(message: Message) -> bytes:
    """A message as bytes."""
    return _encoder.encode(message)


def read_order(message: bytes) -> Order:
    """Raises msgspec.MsgspecError."""
    found: Order = _orders.decode(message)
    return found


def read_answer(message: bytes) -> Answer:
    """Raises msgspec.MsgspecError."""
    found: Answer = _answers.decode(message)
    return found


class _Pickler(pickle.Pickler):
    """Frozen mappings are not known to pickle."""

    def reducer_override(self, value: object) -> Any:
        return (_proxy, (dict(value),)) if isinstance(value, MappingProxyType) else NotImplemented


def _proxy(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


def pack_settings(settings: Settings) -> bytes:
    """The settings as bytes."""
    written = BytesIO()
    _Pickler(written, pickle.HIGHEST_PROTOCOL).dump(settings)
    return written.getvalue()


def unpack_settings(written: bytes) -> Settings:
    """The same settings."""
    found = pickle.loads(written)
    assert isinstance(found, Settings)
    return found


def pack_mistakes(mistakes: list[Mistake]) -> list[tuple[str, str]]:
    """Mistakes without places: the parent knows those."""
    return [(each.key, each.message) for each in mistakes]


def unpack_mistakes(found: list[tuple[str, str]]) -> list[Mistake]:
    """The same mistakes."""
    return [Mistake("", 0, 0, key, message) for key, message in found]
