"""What an auditor's program finds at a listener of ours: testssl.sh, protocols, ciphers and known weaknesses."""

from __future__ import annotations

import json

from tests.integration.secured import NAME, SecureCase
from tests.kit.processes import run

#: Protocols, ciphers by strength, forward secrecy, vulnerabilities: 20 seconds. The whole program takes more than a minute.
PARTS = ("-p", "-s", "-f", "-U")


class AuditTests(SecureCase):
    def test_testssl(self) -> None:
        """testssl.sh finds nothing of any weight, with an ECDSA and an RSA certificate side by side."""
        balancer, port = self.secure(self.one(), tls={"certificates": [self.site(), self.site(NAME, kind="rsa")]})
        report = self.folder / "report.json"
        options = ("--quiet", "--color", "0", "--warnings", "off", "--openssl-timeout", "20", "--jsonfile", str(report))
        command = ["testssl", *options, "--add-ca", self.ca, *PARTS, "--ip", "127.0.0.1", f"{NAME}:{port}"]
        result = run(command, folder=self.folder, deadline=300)
        found = {each["id"]: each for each in json.loads(report.read_text())}
        self.assertGreater(len(found), 30, result.stdout[-2000:])
        grave = {name: each["finding"] for name, each in found.items() if each["severity"] not in ("OK", "INFO")}
        self.assertEqual(grave, {})
        self.assertEqual(
            {found[name]["severity"] for name in ("TLS1_2", "TLS1_3", "heartbleed", "ROBOT", "BREACH")}, {"OK"}
        )
        self.assertEqual((found["TLS1"]["finding"], found["TLS1_1"]["finding"]), ("not offered", "not offered"))
        # Hundreds of handshakes of every sort have left nothing behind.
        self.settle(balancer, 1)
        self.assertEqual(self.curl(port).stdout, b"one")
