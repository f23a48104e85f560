"""Who stands on either side of an exchange, whatever version of HTTP it speaks: names for annotations, and nothing else.

Promises: whoever an exchange is told of is one of these. They matter more than other annotations: where the modules are
compiled (etc/compiled/hook.py) a call on what is none of them fails. Imported under TYPE_CHECKING only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from lbsvc.http.client import UpstreamConnection
    from lbsvc.http.h2_requests import StreamConnection
    from lbsvc.http.h2_upstream import UpstreamStream
    from lbsvc.http.server import ServerConnection

    DownstreamSide: TypeAlias = ServerConnection | StreamConnection
    UpstreamSide: TypeAlias = UpstreamConnection | UpstreamStream
