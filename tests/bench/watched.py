"""The service as `twist loadbalancer` starts it, and a look at its memory and its collector from within (flatness.py).

    python -m tests.bench.watched PAUSES ANSWERS --config FILE

Promises: nothing of the service is changed. Each collection is a record in the file PAUSES (`PAUSE`: generation, objects
found to be garbage, seconds of the clock, seconds of CPU), which is written as it ends; a line on standard input is answered
by a line of JSON on the descriptor ANSWERS: `look` by what there is, `collect` by the same after a full collection, `trace`
by where memory was allocated since `trace` was asked for first (which makes all slower from then on).
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import struct
import sys
import threading
import time
import tracemalloc
from collections import Counter
from typing import Any

PAUSE = struct.Struct("<BIdd")


def record_pauses(path: str) -> None:
    """Every collection from now on."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    begun = [0.0, 0.0]

    def note(phase: str, told: dict[str, int]) -> None:
        if phase == "start":
            begun[:] = time.perf_counter(), time.thread_time()
        else:
            wall, cpu = time.perf_counter() - begun[0], time.thread_time() - begun[1]
            os.write(file, PAUSE.pack(told["generation"], told["collected"], wall, cpu))

    gc.callbacks.append(note)


def look() -> dict[str, Any]:
    """What the interpreter and the C library have in use; objects are those that the collector knows and has not frozen."""
    types = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    return {
        "objects": sum(types.values()),
        "frozen": gc.get_freeze_count(),
        "blocks": sys.getallocatedblocks(),
        "heap": heap(),
        "types": dict(types.most_common(60)),
    }


class Mallinfo(ctypes.Structure):
    """struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "top",
        )
    ]


def heap() -> int:
    """Bytes that malloc has handed out, by which OpenSSL and larger objects live; 0 where there is no glibc to ask."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    ask.restype = Mallinfo
    found = ask()
    return int(found.uordblks + found.hblkhd)


class Tracing:
    """Where memory was allocated, against the first time that it was asked for."""

    def __init__(self) -> None:
        self.first: tracemalloc.Snapshot | None = None

    def answer(self) -> dict[str, Any]:
        if self.first is None:
            tracemalloc.start(12)
            time.sleep(60)  # whatever is allocated in turns has been
            self.first = tracemalloc.take_snapshot()
            return {"trace": ["begun"]}
        found = tracemalloc.take_snapshot().compare_to(self.first, "traceback")
        return {"trace": ["\n".join([str(each), *each.traceback.format()]) for each in found[:15]]}


def answer_questions(answers: int) -> None:
    """As long as there is somebody who asks."""
    tracing = Tracing()
    for line in sys.stdin:
        if line == "collect\n":
            gc.collect()
        os.write(answers, json.dumps(tracing.answer() if line == "trace\n" else look()).encode() + b"\n")


if __name__ == "__main__":
    from twisted.application.twist._twist import Twist

    record_pauses(sys.argv[1])
    threading.Thread(target=answer_questions, args=(int(sys.argv[2]),), daemon=True).start()
    Twist.main(["twist", "--log-level", "warn", "loadbalancer", *sys.argv[3:]])
