"""Twisted's own tests of reactors and transports, the ones that ship in its package, run on our reactor.

Each builder of these modules becomes one class here, as `makeTestCaseClasses` makes them for Twisted's reactors. Left out is
what Twisted itself skips on this kind of machine, so that no test is ever shown as skipped:

- GlibTimeTestsBuilder brings its own list of reactors (glib's), which ours is not.
- test_lostFileDescriptor: skipped for its epoll reactor; a descriptor that is closed behind its back leaves epoll silently.
- test_changeUID, test_changeGID: only for root, and only where uid 1 may run this Python.
- NEEDS_LINK_LOCAL: skipped where no interface has a link-local IPv6 address.
- whatever it marks as skipped when it is imported, such as IPv6 where there is none.
"""

from __future__ import annotations

import importlib
from typing import Any

from twisted.internet.test import test_tcp
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.net.reactor import Reactor

MODULES = ("tcp", "tls", "unix", "socket", "fdset", "core", "time", "threads", "udp", "newtls", "stdio", "process")

LEFT_OUT = {"test_lostFileDescriptor", "test_changeUID", "test_changeGID"}

NEEDS_LINK_LOCAL = {
    "test_serverAddressTCP6",
    "test_buildProtocolIPv6AddressScopeID",
    "test_portGetHostOnIPv6ScopeID",
    "test_serverGetHostOnIPv6ScopeID",
    "test_serverGetPeerOnIPv6ScopeID",
}
NEEDS_LINK_LOCAL_ALL = {"TCP6ClientTestsBuilder", "TCP6ConnectorTestsBuilder"}

#: Seconds after which a test whose reactor still runs has failed: a reactor that loses an event hangs.
PATIENCE = 30


def collect() -> dict[str, type[Any]]:
    """One class for each builder that Twisted makes test cases of, on our reactor."""
    builders: dict[str, Any] = {}
    for name in MODULES:
        module = importlib.import_module(f"twisted.internet.test.test_{name}")
        for found in vars(module).values():
            if isinstance(found, type) and issubclass(found, ReactorBuilder) and issubclass(found, SynchronousTestCase):
                builder = found.__bases__[0]
                if issubclass(builder, ReactorBuilder) and "_reactors" not in vars(builder):
                    builders[builder.__name__] = builder
    collected: dict[str, type[Any]] = {}
    stock = ReactorBuilder._reactors
    ReactorBuilder._reactors = [f"{Reactor.__module__}.{Reactor.__name__}"]
    try:
        for builder in builders.values():
            for name, case in builder.makeTestCaseClasses().items():
                case.__module__ = __name__
                case.__qualname__ = name
                case.timeout = PATIENCE
                case.builder = builder.__name__
                collected[name] = case
    finally:
        ReactorBuilder._reactors = stock
    return collected


CASES = collect()
globals().update(CASES)


def wanted(case: Any, method: str) -> bool:
    """Whether Twisted would run this test here, on an epoll reactor."""
    if method in LEFT_OUT or case.getSkip()[0]:
        return False
    if method in NEEDS_LINK_LOCAL or case.builder in NEEDS_LINK_LOCAL_ALL:
        return bool(test_tcp.getLinkLocalIPv6Addresses())
    return True


class CollectionTests(SynchronousTestCase):
    def test_much_is_run(self) -> None:
        """The collection holds the greater part of what Twisted 26.10 has, transports of every kind among it."""
        names = {test.builder for test in testSuite() if hasattr(test, "builder")}
        self.assertLessEqual({"TCP4ClientTestsBuilder", "TCPPortTestsBuilder", "TCPFDPortTestsBuilder"}, names)
        self.assertLessEqual({"TLSPortTestsBuilder", "AbortSSLConnectionTests", "UNIXTestsBuilder"}, names)
        self.assertGreater(testSuite().countTestCases(), 240)

    def test_on_our_reactor(self) -> None:
        """Each class makes our reactor, and Twisted's list of reactors is as it was."""
        self.assertEqual({case.reactorFactory for case in CASES.values()}, {Reactor})
        self.assertNotIn("lbsvc.net.reactor.Reactor", ReactorBuilder._reactors)


def testSuite() -> Any:
    """What trial takes from this module in place of looking for classes itself."""
    from twisted.trial.runner import TestLoader

    loader = TestLoader()
    suite: Any = loader.suiteFactory()
    for case in (CollectionTests, *CASES.values()):
        for name in loader.getTestCaseNames(case):
            test = case(loader.methodPrefix + name)
            if case is CollectionTests or wanted(test, loader.methodPrefix + name):
                suite.addTest(test)
    return suite
