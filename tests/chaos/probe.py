"""A look into the service's process from outside: which timers are set, and how many objects of ours there are.

An algorithm of this name comes in as a plugin (arena.py writes the plugin's file), and this module with it, which listens on
the unix socket that CHAOS_PROBE in the environment names: who connects gets one JSON object, {"timers": {function: count},
"objects": {class: count}}, taken in the reactor's thread behind a collection of garbage.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import threading
from collections import Counter
from typing import Any, Final

from lbsvc.core.rotation import RoundRobin

#: What is counted of others: these too must not pile up.
OTHERS: Final = ("twisted.internet.defer.Deferred", "twisted.internet.base.DelayedCall", "socket.socket", "_io.BytesIO")


class Probe(RoundRobin):
    """Picks as round_robin does; it is its module that matters."""


def look(reactor: Any) -> dict[str, dict[str, int]]:
    """What there is now. In the reactor's thread."""
    gc.collect()
    timers = Counter(_name(call.func) for call in reactor.getDelayedCalls())
    objects = Counter[str]()
    for each in gc.get_objects():
        kind = type(each)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name.startswith("lbsvc.") or name in OTHERS:
            objects[name] += 1
    return {"timers": dict(timers), "objects": dict(objects)}


def _name(function: Any) -> str:
    inner = getattr(function, "f", function)  # of a LoopingCall
    return f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', repr(type(inner)))}"


def serve(path: str) -> None:
    """Answer whoever connects, for ever."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(5)
    while True:
        one, _ = listener.accept()
        with one:
            from twisted.internet import reactor
            from twisted.internet.threads import blockingCallFromThread

            one.sendall(json.dumps(blockingCallFromThread(reactor, look, reactor)).encode())


if "CHAOS_PROBE" in os.environ:
    threading.Thread(target=serve, args=(os.environ["CHAOS_PROBE"],), daemon=True).start()
