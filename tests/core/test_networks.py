"""Networks: which addresses are inside, and the one spelling of an address."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.networks import LONGEST, MEMORY, Networks, normal_address


class Membership(TestCase):
    def test_inside(self) -> None:
        """An address is in a network whose first bits it has, in each of several sizes and both versions."""
        networks = Networks(["10.0.0.0/8", "192.0.2.128/25", "192.0.2.7/32", "2001:db8::/32", "fe80::1/128"])
        for address in ("10.255.255.255", "192.0.2.128", "192.0.2.7", "2001:db8:ffff::1", "fe80::1", "2001:DB8::a"):
            self.assertTrue(networks.contains(address), address)
        for address in ("11.0.0.0", "192.0.2.127", "192.0.2.6", "2001:db9::", "fe80::2", "::10.0.0.1", "unix"):
            self.assertFalse(networks.contains(address), address)

    def test_everything(self) -> None:
        """0.0.0.0/0 is every IPv4 address, ::/0 every IPv6 one, and neither is the other or a unix socket."""
        all_4, all_6 = Networks(["0.0.0.0/0"]), Networks(["::/0"])
        asked = ("0.0.0.0", "255.255.255.255", "::ffff:192.0.2.1", "::", "ffff::", "unix")
        self.assertEqual([all_4.contains(each) for each in asked], [True, True, True, False, False, False])
        self.assertEqual([all_6.contains(each) for each in asked], [False, False, False, True, True, False])

    def test_single_addresses(self) -> None:
        """An address without a length is a network of one."""
        networks = Networks(["192.0.2.1", "::1"])
        asked = ("192.0.2.1", "192.0.2.2", "::1", "::2")
        self.assertEqual([networks.contains(each) for each in asked], [True, False, True, False])

    def test_mapped(self) -> None:
        """An IPv4 address in IPv6's clothes counts as IPv4, in what is asked and in a network."""
        self.assertTrue(Networks(["10.0.0.0/8"]).contains("::ffff:10.1.2.3"))
        self.assertTrue(Networks(["10.0.0.0/8"]).contains("::FFFF:a01:203"))
        self.assertTrue(Networks(["::ffff:10.0.0.0/104"]).contains("10.1.2.3"))
        self.assertTrue(Networks(["::ffff:0:0/96"]).contains("192.0.2.1"))
        self.assertFalse(Networks(["::ffff:10.0.0.0/104"]).contains("11.1.2.3"))

    def test_scope(self) -> None:
        """A scope does not count; IPv4 has none, and an empty one is none."""
        networks = Networks(["fe80::/10", "192.0.2.0/24"])
        asked = ("fe80::1%eth0", "fe80::1%2", "fe80::1%", "fe80::1%a%b", "192.0.2.1%eth0")
        self.assertEqual([networks.contains(each) for each in asked], [True, True, False, False, False])

    def test_unix(self) -> None:
        """Clients of unix sockets are inside where the word is, alone or beside networks."""
        self.assertTrue(Networks(["unix"]).contains("unix"))
        self.assertTrue(Networks(["10.0.0.0/8", "unix"]).contains("unix"))
        self.assertFalse(Networks(["unix"]).contains("127.0.0.1"))
        self.assertFalse(Networks(["0.0.0.0/0", "::/0"]).contains("unix"))

    def test_garbage(self) -> None:
        """What is no IP literal, be it nearly one, is in no network."""
        networks = Networks(["0.0.0.0/0", "::/0", "unix"])
        for text in (
            *("", " ", "unknown", "_hidden", "localhost", "UNIX", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4"),
            *("1.2.3.4 ", " 1.2.3.4", "1.2.3.4:80", "[::1]", "::1]", "1.2.3.4/32", "0x7f.1.1.1", "2130706433"),
            *(":::", "1::2::3", "12345::", "\u0661.2.3.4", "1.2.3.4\n", "::1\x00", "-1", "x" * 100_000, "1" * 100_000),
        ):
            self.assertFalse(networks.contains(text), text[:40])

    def test_empty(self) -> None:
        """No network holds nothing, and remembers nothing."""
        networks = Networks([])
        self.assertFalse(any(networks.contains(each) for each in ("127.0.0.1", "::1", "unix", "")))
        self.assertEqual(networks._memory, {})

    def test_mistakes(self) -> None:
        """What is no network is refused at once, host bits that are set too."""
        for cidr in ("", "10.0.0.1/8", "10.0.0.0/33", "::/129", "example.com", "Unix"):
            with self.assertRaises(ValueError):
                Networks([cidr])

    def test_values(self) -> None:
        """Sets of the same networks are equal, in any order."""
        one, other = Networks(["::/0", "10.0.0.0/8"]), Networks(("10.0.0.0/8", "::/0", "::/0"))
        self.assertEqual((one, hash(one), repr(one)), (other, hash(other), "<Networks 10.0.0.0/8 ::/0>"))
        self.assertNotEqual(one, Networks(["::/0"]))
        self.assertNotEqual(one, "::/0")


class Memory(TestCase):
    def test_bounded(self) -> None:
        """However many strangers ask, a bounded number of answers is remembered, and all answers are right."""
        networks = Networks(["10.0.0.0/16"])
        for n in range(3 * MEMORY):
            address = f"10.{n % 2}.{n // 256}.{n % 256}"
            self.assertEqual(networks.contains(address), n % 2 == 0)
            self.assertEqual(networks.contains(address), n % 2 == 0)
            self.assertLessEqual(len(networks._memory), MEMORY)

    def test_long_texts(self) -> None:
        """A text that is longer than any address is not remembered."""
        networks = Networks(["::/0"])
        networks.contains("1" * (LONGEST + 1))
        self.assertEqual(networks._memory, {})


class Spelling(TestCase):
    def test_normal(self) -> None:
        """Each address has one spelling: shortest, lower-case, IPv4 where it is one, without a scope."""
        for text, normal in (
            ("192.0.2.1", "192.0.2.1"),
            ("2001:0DB8:0:0:0::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::FFFF:c000:201", "192.0.2.1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::", "::"),
            ("unix", None),
            ("192.0.2.01", None),
            ("[::1]", None),
            ("", None),
        ):
            self.assertEqual(normal_address(text), normal, text)
