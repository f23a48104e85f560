"""Wrong tokens: how many are looked at, who has to wait, and who never has to."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.admin.tries import BURST, BURST_OF_ALL, KNOWN_FOR, MOST_PEERS, MOST_WRONG, PAUSE, TOLD_EACH, Tries, peer_of
from lbsvc.config.schema import AdminSettings
from tests.admin.asking import AskingCase

STATUS = "/api/v1/status"
SESSION = "/dashboard/session"


class TriesCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[dict[str, Any]] = []
        self.tries = Tries(self.clock.seconds, lambda level, event, message, **fields: self.events.append(fields))

    def fail_often(self, peer: str, count: int) -> None:
        for _ in range(count):
            self.tries.failed(peer)


class PeerTests(TriesCase):
    def test_a_few_are_free(self) -> None:
        """As many as the burst are looked at, then none, and one more after each pause: nobody waits for longer."""
        for _ in range(BURST):
            self.assertEqual(self.tries.wait("a"), 0)
            self.tries.failed("a")
        self.assertEqual(self.tries.wait("a"), PAUSE)
        self.clock.advance(PAUSE / 2)
        self.assertEqual(self.tries.wait("a"), PAUSE / 2)
        self.clock.advance(PAUSE / 2)
        self.assertEqual(self.tries.wait("a"), 0)
        self.tries.failed("a")
        self.assertEqual(self.tries.wait("a"), PAUSE)

    def test_others_do_not_wait(self) -> None:
        """Who has shown no wrong one is not held up by who has, whatever strangers do."""
        for number in range(BURST_OF_ALL):
            self.fail_often(f"stranger {number}", 3)
        self.assertEqual(self.tries.wait("operator"), 0)

    def test_all_together(self) -> None:
        """When there were too many in all, those wait who were among them; whoever mistyped it once does for seconds."""
        for number in range(BURST_OF_ALL):
            self.tries.failed(f"stranger {number}")
        self.assertGreater(self.tries.wait("stranger 7"), 0)
        self.tries.failed("operator")
        self.assertGreater(self.tries.wait("operator"), 0)
        for _ in range(20):  # strangers go on
            self.clock.advance(PAUSE / 20)
            self.fail_often("others", 5)
        self.assertEqual(self.tries.wait("operator"), 0)

    def test_memory(self) -> None:
        """However many try, so many are remembered, and those who tried last."""
        self.fail_often("first", BURST)
        self.fail_often("second", BURST)
        self.tries.failed("first")
        for number in range(MOST_PEERS - 1):
            self.tries.failed(f"stranger {number}")
        self.assertEqual(len(self.tries._peers), MOST_PEERS)
        self.assertEqual(self.tries.wait("second"), 0)
        self.assertGreater(self.tries.wait("first"), 0)

    def test_forgotten(self) -> None:
        """Who has waited for all of them is not remembered."""
        self.fail_often("a", 3)
        self.clock.advance(3 * PAUSE)
        self.assertEqual((self.tries.wait("a"), self.tries._peers), (0, {}))

    def test_told(self) -> None:
        """The log hears of the first that has to wait, and of the rest once in a while, with their numbers."""
        self.fail_often("a", BURST - 1)
        self.assertEqual(self.events, [])
        self.fail_often("a", 1)
        for _ in range(50):
            self.tries.wait("a")
        self.assertEqual(self.events, [{"peer": "a", "wrong": BURST, "refused": 0}])
        self.clock.advance(TOLD_EACH)
        self.fail_often("b", BURST)
        self.assertEqual(self.events[1:], [{"peer": "b", "wrong": BURST, "refused": 50}])

    def test_the_same_again(self) -> None:
        """One wrong token as often as anybody likes is one, and is in the log; of others it is another."""
        for _ in range(10 * BURST):
            self.tries.failed("a", b"no")
        self.assertEqual((self.tries.wait("a"), len(self.events)), (0, 1))
        for number in range(BURST - 1):
            self.assertEqual(self.tries.wait("a"), 0)
            self.tries.failed("a", b"%d" % number)
        self.assertGreater(self.tries.wait("a"), 0)
        self.assertEqual(self.tries.wait("b"), 0)
        for number in range(MOST_WRONG + 1):
            self.tries.failed("c", b"%d" % number)
        self.assertEqual(len(self.tries._seen), MOST_WRONG)

    def test_known(self) -> None:
        """From where the right one was shown nobody waits, for as long as it is known, and however many strangers try; the
        log has them all the same."""
        self.tries.passed("a")
        self.fail_often("a", 2 * BURST_OF_ALL)
        self.fail_often("b", 2 * BURST_OF_ALL)
        self.assertEqual((self.tries.wait("a"), self.tries.wait("b") > 0, len(self.events)), (0, True, 1))
        self.clock.advance(KNOWN_FOR)
        self.fail_often("a", 2 * BURST)
        self.assertGreater(self.tries.wait("a"), 0)
        self.tries.passed("a")
        self.assertEqual(self.tries.wait("a"), 0)
        self.tries.forget()
        self.assertEqual(self.tries.wait("a"), PAUSE)
        for number in range(2 * MOST_PEERS):
            self.tries.passed(f"stranger {number}")
        self.assertEqual(len(self.tries._known), MOST_PEERS)

    def test_whose_they_are(self) -> None:
        """An IPv6 network is one peer, an IPv4 address is one however it is written, users of a socket are told apart."""
        self.assertEqual(peer_of(IPv4Address("TCP", "192.0.2.7", 1), None), "192.0.2.7")
        self.assertEqual(peer_of(IPv6Address("TCP", "::ffff:192.0.2.7", 1), None), "192.0.2.7")
        self.assertEqual(peer_of(IPv6Address("TCP", "2001:db8::7", 1), None), "2001:db8::/64")
        self.assertEqual(peer_of(object(), None), "unix, user ?")


class ShowingCase(AskingCase):
    token = "sesame"

    def show(self, token: str, target: str = STATUS) -> int:
        return self.ask("GET", target, Authorization=f"Bearer {token}").status

    def guess(self, count: int) -> list[int]:
        """Wrong ones, no two of them the same."""
        return [self.show(f"wrong {number}") for number in range(count)]

    def sign_in(self, token: str) -> int:
        return self.ask("POST", SESSION, {"token": token}).status


class SiteTests(ShowingCase):
    def test_wrong_tokens(self) -> None:
        """Past the burst even the right one has to wait, and is told for how long; a moment later it is looked at again."""
        self.assertEqual(self.guess(BURST), [401] * BURST)
        answer = self.ask("GET", STATUS, Authorization="Bearer sesame")
        self.assertEqual((answer.status, answer.headers["retry-after"]), (429, "2"))
        self.assertIn("wait", answer.detail)
        self.clock.advance(PAUSE)
        self.assertEqual([self.show("sesame") for _ in range(3)], [200] * 3)
        (event,) = [each for each in self.events if each[1] == "admin.wrong_tokens"]
        self.assertEqual((event[0], event[3]["peer"]), ("warn", "192.0.2.7"))
        self.assertNotIn("sesame", str(self.events))

    def test_signing_in(self) -> None:
        """The dashboard's way counts among the same ones."""
        self.assertEqual([self.sign_in(f"wrong {number}") for number in range(BURST - 1)], [401] * (BURST - 1))
        self.assertEqual(self.sign_in("wrong 1"), 401)  # the same again says nothing new
        self.assertEqual(self.show("wrong", "/dashboard/app.js"), 200)  # no way to find out there what is right
        self.assertEqual((self.sign_in("sesame"), self.show("sesame")), (429, 429))
        self.clock.advance(PAUSE)
        self.assertEqual(self.sign_in("sesame"), 200)

    def test_who_is_not_held_up(self) -> None:
        """Who is signed in, what needs no token, and requests without one are answered as ever."""
        cookie = self.ask("POST", SESSION, {"token": "sesame"}).headers["set-cookie"].partition(";")[0]
        self.guess(2 * BURST)
        self.assertEqual(self.show("sesame"), 429)
        self.assertEqual(self.ask("GET", STATUS, Cookie=cookie).status, 200)
        self.assertEqual((self.show("wrong", "/livez"), self.show("wrong", "/readyz")), (200, 200))
        self.assertEqual((self.ask("GET", STATUS).status, self.ask("GET", "/dashboard/").status), (401, 200))

    def test_one_wrong_one(self) -> None:
        """Whoever says the same wrong one all the time keeps nobody out who has his address, and learns nothing."""
        for _ in range(3 * BURST):
            self.assertEqual((self.show("no"), self.show("sesame")), (401, 200))

    def test_a_short_token(self) -> None:
        """A right guess that is held up is told from a wrong one by nothing, wherever the token was shown before."""
        self.assertEqual(self.show("sesame"), 200)
        self.guess(BURST)
        right, wrong = (self.ask("GET", STATUS, Authorization=f"Bearer {each}") for each in ("sesame", "another"))
        self.assertEqual((right.status, right.headers, right.body), (429, wrong.headers, wrong.body))

    def test_right_ones_count_for_nothing(self) -> None:
        """Whoever shows the right one may do so as often as they like."""
        self.assertEqual([self.show("sesame") for _ in range(3 * BURST)], [200] * 3 * BURST)


class LongTokenTests(ShowingCase):
    token = "a-token-of-20-letters"

    def test_where_it_is_not_known(self) -> None:
        """Before it was shown from there the right one has to wait as well, and is not told from others."""
        self.guess(BURST)
        self.assertEqual(self.show(self.token), 429)
        self.clock.advance(PAUSE)
        self.assertEqual(self.show(self.token), 200)

    def test_where_it_is_known(self) -> None:
        """Once it was, strangers with the same address keep nobody out, by whatever tokens."""
        self.assertEqual(self.show(self.token), 200)
        self.guess(3 * BURST)
        self.assertEqual((self.show(self.token), self.sign_in(self.token), self.show("another")), (200, 200, 401))

    def test_a_cookie_of_it(self) -> None:
        """The same where somebody is signed in there."""
        cookie = self.ask("POST", SESSION, {"token": self.token}).headers["set-cookie"].partition(";")[0]
        self.assertEqual(self.ask("GET", STATUS, Cookie=cookie).status, 200)
        self.guess(3 * BURST)
        self.assertEqual(self.show(self.token), 200)

    def test_another_token(self) -> None:
        """Not when the token is another one since."""
        self.assertEqual(self.show(self.token), 200)
        self.site.obey(AdminSettings(token="another-of-20-letters"))
        self.guess(3 * BURST)
        self.assertEqual(self.show("another-of-20-letters"), 429)


class TokenlessTests(AskingCase):
    def test_nothing_to_guess(self) -> None:
        """Where no token is set none is wrong."""
        for _ in range(2 * BURST):
            self.assertEqual(self.ask("GET", STATUS, Authorization="Bearer x").status, 200)
