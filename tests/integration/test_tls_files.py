"""Certificates as files that change: taken up under load, kept where the new ones are wrong, spoken of before they end."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from tests.integration.secured import NAME, SecureCase
from tests.kit.authority import Authority
from tests.kit.processes import TWIST, Balancer, free_ports, run, until
from tests.kit.programs import Wrk
from tests.kit.secure_wire import SecureClient, client_side
from tests.kit.upstreams import named_backend

DAY = 86400.0
EXCHANGES = 8
CLIENTS = 4


def told(balancer: Balancer, event: str) -> list[dict[str, object]]:
    return [line for line in balancer.events() if line["event"] == event]


class ExchangeTests(SecureCase):
    def setUp(self) -> None:
        super().setUp()
        self.backend_ = self.backend(named_backend("one"))

    def front(self, *certificates: dict[str, str], **tls: Any) -> tuple[Balancer, int]:
        wanted = {"certificates": list(certificates), "reload_interval": "100ms", **tls}
        return self.secure(self.backend_.address, tls=wanted)

    def serial(self, port: int, name: str = NAME) -> int:
        """The number of the certificate that is served."""
        with SecureClient(port, name, client_side()) as client:
            return client.certificate.serial_number

    def test_under_load(self) -> None:
        """Certificates are exchanged again and again: not one handshake or request fails, and each new one is served
        (TLS-3, V19)."""
        balancer, port = self.front(self.files(self.authority.issue(NAME), "site"))
        wrk = Wrk(f"https://127.0.0.1:{port}/", folder=self.folder)
        self.addCleanup(wrk.stop)
        is_over = threading.Event()

        def load(number: int) -> tuple[int, list[str]]:
            """New connections all the time, every other one with the session of the last."""
            side, session = client_side(self.authority, ("1.2", "1.3")[number % 2]), None
            served, failures = 0, []
            while not is_over.is_set():
                try:
                    with SecureClient(port, NAME, side, session=session) as client:
                        assert client.get("/").body == b"one"
                        session = client.secure.tls.get_session() if session is None else None
                        served += 1
                except (OSError, EOFError, SSL.Error) as error:
                    failures.append(repr(error))
            return served, failures

        results: list[tuple[int, list[str]]] = []
        loads = threading.Thread(target=lambda: results.extend(self.at_once(CLIENTS, load)))
        loads.start()
        try:
            for number in range(EXCHANGES):
                leaf = self.authority.issue(NAME, kind=("rsa", "ecdsa")[number % 2], number=number)
                self.files(leaf, "site")
                until(lambda leaf=leaf: self.serial(port) == leaf.certificate.serial_number, "the new one is served")
        finally:
            is_over.set()
            loads.join()
        report = wrk.end()
        self.assertEqual(report.errors, {})
        self.assertGreater(report.requests, 0)
        for served, failures in results:
            self.assertEqual(failures, [])
            self.assertGreater(served, 0)
        self.assertEqual(self.handshakes(balancer, "failure"), 0)
        self.assertGreaterEqual(len(told(balancer, "certificate.loaded")), EXCHANGES)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)

    def test_wrong_new_files(self) -> None:
        """What is wrong is told once, and the old one stays; half a pair does no harm; the whole is taken up
        (TLS-3)."""
        old, new = self.authority.issue(NAME), self.authority.issue(NAME, number=1)
        files = self.files(old, "site")
        balancer, port = self.front(files)
        for count, wrong in enumerate((b"", b"no certificate\n", old.cert_pem[:-60], new.cert_pem), 1):
            Path(files["cert"]).write_bytes(wrong)
            until(lambda count=count: len(told(balancer, "certificate.refused")) == count, f"refused {wrong!r}")
            self.assertEqual(self.serial(port), old.certificate.serial_number)
        self.assertEqual(balancer.metric("lbsvc_tls_certificate_reloads_total", result="failure"), 4)
        self.assertEqual(balancer.metric("lbsvc_tls_certificate_reloads_total", result="success"), 0)
        Path(files["key"]).write_bytes(new.key_pem)
        until(lambda: self.serial(port) == new.certificate.serial_number, "the new one is served")
        until(lambda: told(balancer, "certificate.loaded"), "told")
        self.assertEqual(balancer.metric("lbsvc_tls_certificate_reloads_total", result="success"), 1)
        event = told(balancer, "certificate.refused")[-1]
        self.assertEqual((event["level"], event["listener"], event["path"]), ("error", "main", files["key"]))

    def test_one_of_two_is_wrong(self) -> None:
        """A file that has gone keeps nobody else's new one from being taken up."""
        first, second = self.files(self.authority.issue(NAME), "a"), self.files(self.authority.issue("b.example"), "b")
        balancer, port = self.front(first, second)
        before = self.serial(port)
        Path(first["key"]).unlink()
        until(lambda: told(balancer, "certificate.refused"), "told")
        new = self.authority.issue("b.example", number=1)
        self.files(new, "b")
        until(lambda: self.serial(port, "b.example") == new.certificate.serial_number, "the new one is served")
        self.assertEqual(self.serial(port), before)

    def test_names_are_those_of_the_new_one(self) -> None:
        """A certificate that has got another name is chosen by that, and open connections live on."""
        first, second = self.files(self.authority.issue("a.example"), "a"), self.files(self.authority.issue(NAME), "b")
        balancer, port = self.front(first, second)
        open_before = self.client(port)
        self.assertEqual(open_before.get("/").body, b"one")
        self.files(self.authority.issue("c.example"), "b")
        until(lambda: told(balancer, "certificate.loaded"), "told")
        self.assertEqual(self.curl(port, name="c.example").stdout, b"one")
        self.assertEqual(self.curl(port, status=60).stdout, b"")
        self.assertEqual(open_before.get("/").body, b"one")
        text = balancer.admin("/metrics")[1].decode()
        self.assertIn('certificate_not_after_timestamp_seconds{listener="main",name="c.example"}', text)
        self.assertNotIn(f'name="{NAME}"', text)

    def test_another_client_ca(self) -> None:
        """A new client_ca counts from then on: the old one's clients stay outside, the new one's come in."""
        old, new = Authority("old"), Authority("new")
        shown = {
            name: ("--cert", files["cert"], "--key", files["key"])
            for name, files in (("old", self.files(old.issue("x"), "old")), ("new", self.files(new.issue("x"), "new")))
        }
        path = old.write(str(self.folder), "clients")
        balancer, port = self.front(self.site(), client_ca=path)
        self.assertEqual(self.curl(port, *shown["old"]).stdout, b"one")
        self.assertNotEqual(self.curl(port, *shown["new"], status=None).returncode, 0)
        new.write(str(self.folder), "clients")
        until(lambda: told(balancer, "certificate.loaded"), "told")
        self.assertEqual(self.curl(port, *shown["new"]).stdout, b"one")
        self.assertNotEqual(self.curl(port, *shown["old"], status=None).returncode, 0)


class DateTests(SecureCase):
    def test_expired(self) -> None:
        """An expired certificate is served, with a note of --check, a warning, and a metric in the past (TLS-1)."""
        balancer, port = self.secure(self.one(), tls={"certificates": [self.site(days=-3)]})
        checked = run([*TWIST, "loadbalancer", "--config", str(balancer.file), "--check"])
        self.assertEqual(checked.returncode, 0)
        self.assertIn(b": listeners.main.tls.certificates[0].cert: expired on ", checked.stderr)
        self.assertEqual(self.curl(port, "-k").stdout, b"one")
        (event,) = told(balancer, "certificate.expiring")
        self.assertEqual((event["level"], event["listener"], event["name"]), ("warn", "main", NAME))
        self.assertLess(self.end(balancer), time.time())

    def test_expiring(self) -> None:
        """One that ends within two weeks is told, one that lasts longer is not; the metric has the end of both."""
        soon, later = self.site(days=13), self.site("later.example", days=20)
        balancer, _ = self.secure(self.one(), tls={"certificates": [soon, later]})
        until(lambda: told(balancer, "certificate.expiring"), "told")
        self.assertEqual([event["name"] for event in told(balancer, "certificate.expiring")], [NAME])
        self.assertApproximates(self.end(balancer) - time.time(), 13 * DAY, 600)
        self.assertApproximates(self.end(balancer, "later.example") - time.time(), 20 * DAY, 600)

    def end(self, balancer: Balancer, name: str = NAME) -> float:
        """The metric, in Unix seconds."""
        line = f'lbsvc_tls_certificate_not_after_timestamp_seconds{{listener="main",name="{name}"}} '
        lines = balancer.admin("/metrics")[1].decode().splitlines()
        return float(next(each for each in lines if each.startswith(line)).removeprefix(line))


class StartTests(SecureCase):
    def test_wrong_at_the_start(self) -> None:
        """What is wrong with certificates is said at their keys, all of it at once, and nothing starts (TLS-1)."""
        right, other = self.site(), self.files(self.authority.issue("b.example", number=1), "other")
        port, admin = free_ports(2)
        text = (
            f"listeners:\n  main:\n    bind: 127.0.0.1:{port}\n    pool: web\n    tls:\n      certificates:\n"
            f"        - {{cert: {right['cert']}, key: {other['key']}}}\n        - {{cert: missing.pem, key: missing.key}}\n"
            "      client_ca: missing.pem\npools: {web: {backends: ['127.0.0.1:1']}}\n"
            f"admin: {{bind: 127.0.0.1:{admin}}}\n"
        )
        balancer = self.start(text)
        self.assertEqual(balancer.wait(), 78)
        lines = [line for line in balancer.errors.splitlines() if ": listeners.main.tls" in line]
        keys = [line.split(": ")[1] for line in lines]
        wrong = ["certificates[0].key", "certificates[1].cert", "client_ca"]
        self.assertEqual(keys, [f"listeners.main.tls.{key}" for key in wrong])
        self.assertEqual(balancer.text, "")
