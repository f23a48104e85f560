"""Is a request within a `rate_limit` of its listener or route (lb-reference.yaml; the buckets are core/ratelimit.py)?

Promises: who asks is who the listener believes it is; a header's value is a key of its own and never a client's; without
that header the client is the key. Asked by the exchange once for each request.
"""

from __future__ import annotations

from math import ceil

from lbsvc.core.policies import RatePolicy
from lbsvc.core.ratelimit import RateLimiter, client_key
from lbsvc.http.messages import RequestHead


def limit_for(policy: RatePolicy | None, former: RequestLimit | None) -> RequestLimit | None:
    """What keeps `policy`: `former`, with its buckets, where that does already."""
    if policy is None or (former is not None and former.policy == policy):
        return None if policy is None else former
    return RequestLimit(policy)


class RequestLimit:
    """One rate limit, and its buckets."""

    __slots__ = ("_header", "_is_common", "limiter")

    def __init__(self, policy: RatePolicy) -> None:
        self.limiter = RateLimiter(policy)
        self._header = policy.key.removeprefix("header:").encode() if policy.key.startswith("header:") else b""
        self._is_common = policy.key == "listener"

    @property
    def policy(self) -> RatePolicy:
        """What it was made for."""
        return self.limiter.policy

    def wait(self, head: RequestHead, client: str, now: float) -> int:
        """0: it may pass. Else the seconds after which it may come again, for Retry-After."""
        key: str | bytes = ""
        if not self._is_common:
            value = head.header(self._header) if self._header else None
            key = client_key(client) if value is None else value
        return ceil(self.limiter.take(key, now))
