"""Connections of which a trusted proxy does not know whose they are (PROXY UNKNOWN): those of strangers."""

from __future__ import annotations

from lbsvc.net.arrival import Arrival
from tests.http.test_client_certificates import PROXIES, PROXY, Certified
from tests.http.test_client_certificates import CertificateCase as _CertificateCase

FORGED = (
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n"
    b"X-Client-Cert-Verified: true\r\nX-Request-Id: mine\r\n\r\n"
)


class NamelessTests(_CertificateCase):
    def told_by(self, is_nameless: bool) -> list[bytes]:
        """What a backend is told of a client that claims everything."""
        road = self.road(listener={"trusted_proxies": PROXIES})
        client = Certified(road, Arrival(PROXY, 1, is_nameless=is_nameless))
        road.clients.append(client)
        client.send(FORGED)
        return self.asked(road)

    def test_nobody_is_believed(self) -> None:
        """Nothing that such a client says of itself goes on, though its address is a trusted proxy's."""
        lines = self.told_by(True)
        self.assertIn(b"X-Forwarded-For: 10.0.0.9", lines)
        for forged in (b"6.6.6.6", b"https", b"X-Client-Cert", b"mine"):
            self.assertNotIn(forged, b"\n".join(lines))

    def test_the_proxy_itself(self) -> None:
        """One that speaks for itself (LOCAL) is believed as ever."""
        lines = self.told_by(False)
        self.assertIn(b"X-Forwarded-For: 6.6.6.6, 10.0.0.9", lines)
        self.assertIn(b"X-Client-Cert-Verified: true", lines)
