"""`${NAME}` in configurations: where it works, and that no message tells what a variable holds."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.config.loader import load_text
from lbsvc.config.scalars import VariableError, expand
from lbsvc.errors import ConfigErrors
from tests.config.reading import (
    LISTENER,
    POOL,
    listener,
    listener_mistakes,
    mistakes,
    pool,
    pool_mistakes,
    top_mistakes,
)


class ExpandTests(TestCase):
    def test_inside_text(self) -> None:
        """Variables take their places, each is named once."""
        self.assertEqual(expand("a${A}b${B}${A}", {"A": "1", "B": "2"}), ("a1b21", ("A", "B"), False))
        self.assertEqual(expand("${A}", {"A": "1"}), ("1", ("A",), True))

    def test_defaults(self) -> None:
        """A default stands for what is not set, or empty."""
        self.assertEqual(expand("${A:-x y}", {})[0], "x y")
        self.assertEqual(expand("${A:-x}", {"A": ""})[0], "x")
        self.assertEqual(expand("${A:-x}", {"A": "1"})[0], "1")
        self.assertEqual(expand("${A:-}", {})[0], "")
        self.assertEqual(expand("${A:-$5 {x}", {})[0], "$5 {x")

    def test_escape(self) -> None:
        """$${ is ${, and other dollars are themselves."""
        self.assertEqual(expand("$${A} $A $$ $", {"A": "1"}), ("${A} $A $$ $", (), False))
        self.assertEqual(expand("$${A}", {"A": "1"}), ("${A}", (), False))

    def test_mistakes(self) -> None:
        """A variable without a value, or that is none, is a mistake."""
        for text in ("${}", "${1}", "${A", "${A-b}", "${A:-${B}}", "${ A }"):
            with self.assertRaises(VariableError, msg=text):
                expand(text, {"A": "1", "B": "2"})
        with self.assertRaisesRegex(VariableError, r"^\$\{C\} is not set and has no default$"):
            expand("${A}${C}", {"A": "1"})
        with self.assertRaisesRegex(VariableError, r"^\$\{A\} is not UTF-8 text$"):
            expand("${A}", {"A": "\udcff"})

    def test_held_variables_are_not_searched(self) -> None:
        """What a variable holds is not expanded again."""
        self.assertEqual(expand("${A}", {"A": "${B}", "B": "2"})[0], "${B}")


class VariableTests(TestCase):
    def test_a_whole_value_is_read_as_yaml(self) -> None:
        """A value that is one variable has the type of what it holds; one that is only partly so is text."""
        self.assertEqual(listener("backlog: ${N:-7}").backlog, 7)
        self.assertEqual(listener('backlog: "${N}"', {"N": " 7\n"}).backlog, 7)
        self.assertEqual(listener("access_log: ${A}", {"A": "false"}).access_log, False)
        self.assertEqual(
            listener_mistakes("backlog: ${N}0", {"N": "1"}),
            ["5:5: listeners.web.backlog: must be a whole number (from ${N})"],
        )
        self.assertEqual(
            listener_mistakes("backlog: ${N}", {"N": "'7'"}),
            ["5:5: listeners.web.backlog: must be a whole number (from ${N})"],
        )

    def test_text_from_a_variable_stays_text(self) -> None:
        """Where text is wanted, what a variable holds is text even if it looks like a number."""
        respond = "routes: [{respond: {body: '${B}'}}]"
        for held, body in (("010", "010"), ("true", "true"), ("", ""), ('"x y"', "x y"), ('"x', '"x')):
            found = listener(respond, {"B": held}).routes[0].respond
            assert found is not None
            self.assertEqual(found.body, body)

    def test_an_escaped_variable_is_text(self) -> None:
        """$${X} is the text ${X} and is not expanded at a second look."""
        found = listener(
            "routes: [{respond: {body: 'a $${X}'}}, {match: {methods: GET}, respond: {body: '$${X}'}}]", {"X": "1"}
        )
        self.assertEqual([r.respond.body for r in found.routes if r.respond], ["a ${X}", "${X}"])
        self.assertEqual(
            pool_mistakes("retry: {when: $$${X}}".replace("$$${X}", "'$${X}'"), {"X": "1"}),
            [
                "8:13: pools.p.retry.when: must be connect_failure, reset, timeout, 502, 503, 504, 5xx or a gRPC "
                'code such as unavailable (got "${X}")'
            ],
        )

    def test_unset(self) -> None:
        """A variable that is not set is a mistake at the key where it is used."""
        self.assertEqual(
            listener_mistakes("backlog: ${N}"), ["5:5: listeners.web.backlog: ${N} is not set and has no default"]
        )

    def test_ignored_where_nothing_reads_it(self) -> None:
        """Under x- keys nothing is expanded, until an alias takes it elsewhere."""
        self.assertEqual(top_mistakes("x-a: ${UNSET}"), [])
        self.assertEqual(
            mistakes("x-a: &a ${UNSET}\n" + LISTENER + "    backlog: *a\n" + POOL),
            ["6:5: listeners.web.backlog: ${UNSET} is not set and has no default"],
        )

    def test_names_are_not_expanded(self) -> None:
        """A name with a variable in it is refused rather than taken as it is written."""
        self.assertEqual(
            top_mistakes("x-a: 1")
            + mistakes("listeners: {'${A}': {bind: 80, pool: p}}\n" + POOL, {"A": "a"}),
            ["1:13: listeners.${A}: the name must be written out: variables are not expanded in names"],
        )  # fmt: skip

    def test_no_message_shows_what_a_variable_holds(self) -> None:
        """Whatever key takes it, and whatever is wrong with it."""
        secret = "hunter 2\x07"
        for lines in (
            "pool: ${S}", "bind: ${S}", "protocol: ${S}", "backlog: ${S}", "max_connections: ${S}", "forwarded: ${S}",
            "access_log: ${S}", "tls: ${S}", "timeouts: ${S}", "timeouts: {idle: '${S}'}", "limits: {body_size: '${S}'}",
            "routes: ${S}", "routes: ['${S}']", "routes: [{match: {host: '${S}'}, respond: {}}]",
            "routes: [{match: {path: '${S}'}, respond: {}}]", "routes: [{match: {path: '/${S}'}, respond: {}}]",
            "routes: [{match: {methods: ['${S}']}, respond: {}}]", "routes: [{match: {headers: {A: '${S}'}}, respond: {}}]",
            "rate_limit: ${S}", "rate_limit: {rate: '${S}'}", "rate_limit: {rate: 1/s, key: 'header:${S}'}",
            "routes: [{respond: {}, rate_limit: '${S}'}]", "rate_limit: {rate: 1/s, key: '${S}'}",
            "routes: [{name: '${S}', respond: {}}]", "routes: [{redirect: '${S}'}]", "routes: [{respond: {status: '${S}'}}]",
        ):  # fmt: skip
            text = "listeners:\n  web:\n    " + lines + "\n" + POOL
            self.assert_hidden(text, secret)
        for lines in (
            "algorithm: ${S}", "hash_key: ${S}", "health_check: ${S}", "health_check: {path: '${S}'}",
            "health_check: {expect_status: '${S}'}", "retry: {when: '${S}'}", "retry: {methods: '${S}'}",
            "retry: {budget: '${S}'}", "retry: {backoff: {max: '${S}'}}", "sticky: ${S}", "resolve: ${S}",
            "connections: {max_lifetime: '${S}'}", "queue: {size: '${S}'}", "panic_threshold: ${S}",
            "hash_key: 'header:${S}'", "hash_key: 'cookie:${S}'", "sticky: {cookie: '${S}'}", "sticky: {key: '${S}'}",
            "sticky: {secure: '${S}'}", "sticky: {same_site: '${S}'}", "slow_start: ${S}", "flapping: ${S}",
            "passive_health: ${S}", "circuit_breaker: {reset_timeout: '${S}'}",
        ):  # fmt: skip
            self.assert_hidden(LISTENER + POOL + "    " + lines + "\n", secret)
        for lines in (
            "'${S}'",
            "'http://${S}'",
            "'http://${S}@h:1'",
            "'https://${S}'",
            "'${S}:80'",
            "'h:${S}'",
            "{address: h:1, weight: '${S}'}",
        ):
            self.assert_hidden(LISTENER + "pools: {p: {backends: [" + lines + "]}}\n", secret)
        for lines in (
            "admin: ${S}",
            "admin: {token: '${S}'}",
            "admin: {bind: '${S}'}",
            "admin: {hosts: '${S}'}",
            "log: {level: '${S}'}",
        ):
            self.assert_hidden(LISTENER + POOL + lines + "\n", secret)

    def test_no_message_shows_what_clashes(self) -> None:
        """Ports and addresses that are there twice are named by their keys alone, if they come from variables."""
        env = {"A": "127.0.0.1:5432", "N": "hunter2"}
        text = "listeners: {a: {bind: '${A}', pool: p}, b: {bind: '${A}', pool: '${N}'}}\n"
        text += "pools: {p: {backends: ['${A}', '${A}']}}"
        self.assertEqual(
            mistakes(text, env),
            [
                "1:45: listeners.b.bind: clashes with listeners.a.bind in line 1 (from ${A})",
                "1:59: listeners.b.pool: there is no pool of this name (from ${N})",
                "2:32: pools.p.backends[1]: is the same address as backends[0]",
            ],
        )

    def assert_hidden(self, text: str, secret: str) -> None:
        found = "\n".join(mistakes(text, {"S": secret}))
        self.assertTrue(found, text)
        self.assertNotIn("hunter", found, text)

    def test_without_an_environment(self) -> None:
        """A text that is only to be checked keeps its variables, and messages say why they do not fit."""
        text = LISTENER + "    backlog: ${N:-7}\n" + POOL
        with self.assertRaises(ConfigErrors) as caught:
            load_text(text, "f", None)
        self.assertEqual(
            [str(m) for m in caught.exception.mistakes],
            ['f:5:5: listeners.web.backlog: must be a whole number (got "${N:-7}"; variables are not expanded here)'],
        )
        loaded = load_text(LISTENER + POOL + "admin: {token: '${UNSET}'}\n", "f", None)
        assert loaded.settings.admin is not None
        self.assertEqual(loaded.settings.admin.token, "${UNSET}")

    def test_health_check_can_be_switched_by_a_variable(self) -> None:
        """off from a variable is off."""
        self.assertIsNone(pool("health_check: ${H}", {"H": "off"}).health_check)
