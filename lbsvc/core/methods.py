"""The request methods that are passed on; any other is answered 501 (RFC 9110, 9.1).

They are those that llhttp knows, since a second parser must agree on every head (http/h1_requests.py). CONNECT and the
HTTP/2 preface's PRI are not for a gateway. Read by the codec, and by the configuration, where a route for a method that
never comes would be a mistake that nobody sees.
"""

from __future__ import annotations

from typing import Final

METHODS: Final = frozenset(
    b"GET HEAD POST PUT DELETE OPTIONS TRACE PATCH COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND "
    b"UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK "
    b"SOURCE QUERY".split()
)
