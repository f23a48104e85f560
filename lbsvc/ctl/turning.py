"""The reactor of a command that has one: ours, where the platform has epoll.

Promises: as tap.py does it: nothing is installed where a reactor was chosen before. Called by request.py and demo.py, when
they run and not when they are imported, since most commands of lbctl need none.
"""

from __future__ import annotations

import sys
from typing import Any


def the_reactor() -> Any:
    """The global reactor, which is ours if none had been chosen."""
    if "twisted.internet.reactor" not in sys.modules:
        try:
            from lbsvc.net.reactor import install
        except ImportError:
            pass  # no epoll here: Twisted's default works as well, only slower and without TLS
        else:
            install()
    from twisted.internet import reactor

    return reactor
