"""The OpenAPI file: the table told once, and held against a site that answers (schemathesis)."""

from __future__ import annotations

import os
import re
import sys
from typing import cast

from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase
from typing_extensions import override

from lbsvc.admin import tries
from lbsvc.admin.control import Look, anyhow
from lbsvc.admin.operations import OPERATIONS, Operation, Table
from lbsvc.admin.schemas import SCHEMAS
from lbsvc.admin.site import make_site
from lbsvc.core.books import Histogram
from lbsvc.observe.metrics import LbsvcCollector
from tests.admin.asking import AskingCase
from tests.admin.fake_control import TWO_POOLS, Applied, FakeControl
from tests.observe.sample_view import SampleView

reactor = cast(EPollReactor, global_reactor)

#: Examples for each operation, and a seed that makes them the same ones each time.
EXAMPLES = 15
SEED = 20261121

RIGHT = "Bearer s3cret"

#: What it may be refused with although it is as the file says: what other calls have left, and rules that no schema has.
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404, 409, 412, 422]

[checks.negative_data_rejection]
expected-statuses = [400, 401, 404, 405, 409, 412, 415, 422]
"""


#: Names that are there, so that calls come further than 404.
NAMES = """
[parameters]
"path.pool" = "web"
"path.name" = "a"
"query.pool" = "web"
"""


class Lasting(FakeControl):
    """A service that says that it removes, and does not: what is asked of it does not depend on what was asked before."""

    @override
    def remove(self, who: str, pool: str, name: str, drain: float | None, look: Look = anyhow) -> Deferred[Applied]:
        return succeed(Applied(self.generation, (f"{name}: removed",)))


class FileTests(AskingCase):
    def test_served(self) -> None:
        """The file is JSON, and has every operation of the table, and itself."""
        answer = self.ask("GET", "/api/v1/openapi.json")
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "application/json"))
        found = answer.json()
        self.assertEqual(found["openapi"], "3.1.0")
        told = {(method.upper(), path) for path, item in found["paths"].items() for method in item}
        pages = {("GET", path) for path in ("/livez", "/readyz", "/metrics", "/api/v1/openapi.json")}
        self.assertEqual(told, {(each.method, each.path) for each in OPERATIONS} | pages)

    def test_references(self) -> None:
        """Every schema that is referred to is there, and every one that is there is referred to."""
        text = self.ask("GET", "/api/v1/openapi.json").body.decode()
        self.assertEqual(set(re.findall(r'"#/components/schemas/(\w+)"', text)), set(SCHEMAS))

    def test_names_are_unique(self) -> None:
        """No two operations have the same name, nor the same method and path."""
        self.assertEqual(len({each.name for each in OPERATIONS}), len(OPERATIONS))
        self.assertEqual(len({(each.method, each.path) for each in OPERATIONS}), len(OPERATIONS))


class TableTests(TestCase):
    def test_find(self) -> None:
        """A path finds its operations and the names in it; one that is longer, shorter or other finds nothing."""
        table = Table(OPERATIONS)

        def methods(*segments: str) -> list[str]:
            return sorted(table.find(segments)[0])

        self.assertEqual(methods("api", "v1", "pools", "x", "backends", "y/z"), ["DELETE", "GET", "PATCH"])
        self.assertEqual(table.find(("api", "v1", "pools", "x", "backends", "y/z"))[1], {"pool": "x", "name": "y/z"})
        for segments in (
            (),
            ("api",),
            ("api", "v1", "pools", "x", "y"),
            ("api", "v1", "pools", "x", "backends", "y", "z"),
        ):
            self.assertEqual(methods(*segments), [])

    def test_every_view_is_found_by_its_path(self) -> None:
        """No operation hides another."""
        table = Table(OPERATIONS)
        for each in OPERATIONS:
            found: Operation = table.find(each.segments)[0][each.method]
            self.assertIs(found, each)


class SchemathesisTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        # It shows wrong tokens on purpose, and would have to wait (test_tries.py).
        self.patch(tries, "BURST", 10**6)
        self.patch(tries, "BURST_OF_ALL", 10**6)

    async def run_against(self, control: FakeControl, settings: str, token: str, *options: str) -> None:
        """Have a site tested by schemathesis, and fail with what it says where it has found something."""
        site = make_site(
            reactor, LbsvcCollector(SampleView(), Histogram()), lambda: None, token=token, control=control
        )  # fmt: skip
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        folder = self.mktemp()
        os.makedirs(folder)
        with open(os.path.join(folder, "schemathesis.toml"), "w") as file:
            file.write(settings)
        try:
            out, err, code = await getProcessOutputAndValue(
                sys.executable,
                ["-c", "from schemathesis.cli import schemathesis; schemathesis()",
                 "run", f"http://127.0.0.1:{address.port}/api/v1/openapi.json",
                 "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--exclude-operation-id", "watchEvents",
                 "--no-color", "--continue-on-failure", "--warnings", "off", "--suppress-health-check", "all",
                 "--request-timeout", "30", *options],
                env={**os.environ, "NO_PROXY": "127.0.0.1", "COLUMNS": "200"},
                path=folder,
            )  # fmt: skip
        finally:
            await port.stopListening()
        text = (out + err).decode("utf-8", "replace")
        if code or not re.search(r"Test cases:\s+\d{3,} generated", text):
            self.fail(text)

    async def test_what_is_answered_is_what_is_said(self) -> None:
        """Requests made from the file, right ones and wrong ones, are answered as the file says, and never by a 500."""
        await self.run_against(FakeControl(TWO_POOLS), SETTINGS, "", "--phases", "examples,coverage,fuzzing")
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_names_that_are_there(self) -> None:
        """The same where a token is set, which nothing passes without, and with names that lead somewhere."""
        control = Lasting()
        await self.run_against(
            control, SETTINGS + NAMES, "s3cret", "--phases", "coverage,fuzzing", "--header", f"Authorization: {RIGHT}"
        )
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertGreater(control.revisions["web"], 5)
