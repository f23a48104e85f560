"""The top of a configuration: admin, logs, shutdown, and what one part says about another."""

from __future__ import annotations

import os

from twisted.trial.unittest import TestCase

from lbsvc.config.loader import check_text
from lbsvc.config.schema import AccessLogSettings, AdminSettings, Bind, LogSettings, OverloadSettings, ShutdownSettings
from tests.config.reading import LISTENER, POOL, load, mistakes, settings, top, top_mistakes


class TopTests(TestCase):
    def test_defaults(self) -> None:
        """A listener and a pool are enough; the rest is as the reference says (FIELD-3)."""
        found = top("")
        self.assertEqual(found.admin, AdminSettings(Bind("127.0.0.1", 9901), (), ""))
        self.assertEqual(found.access_log, AccessLogSettings("-", "json", 1.0))
        self.assertEqual(found.log, LogSettings("-", "info", "auto"))
        self.assertEqual(found.shutdown, ShutdownSettings(0, 30))
        self.assertEqual(
            found, top("admin: {}\naccess_log:\nlog: {}\nshutdown:\nwatch: false\nstate_file: null\nworkers: 1")
        )

    def test_nothing(self) -> None:
        """A configuration has listeners; the place of what is missing is the beginning."""
        for text in ("", "# nothing\n", "{}", "x-a: 1\n"):
            self.assertEqual(mistakes(text), ["1:1: listeners: is required"])
        for text in ("listeners:", "listeners: {}"):
            self.assertEqual(mistakes(text), ["1:1: listeners: needs at least one listener"])
        for text, got in {"[]": "a list", "x": '"x"', "5": "5"}.items():
            self.assertEqual(mistakes(text), [f"1:1: must be a mapping (got {got})"])

    def test_unknown_keys(self) -> None:
        """Keys that begin with x- are ignored; others are known or wrong."""
        self.assertEqual(
            top_mistakes("x-anything: [1]\nlisteners_: {}\nlistener: {}\nversion: 1\n8080: 1"),
            [
                "9:1: listeners_: unknown key (did you mean listeners?)",
                "10:1: listener: unknown key (did you mean listeners?)",
                "11:1: version: unknown key",
                "12:1: 8080: unknown key",
            ],
        )

    def test_odd_keys_stay_on_their_line(self) -> None:
        """A key that would confuse the path, or the line, is quoted."""
        self.assertEqual(
            top_mistakes('"a.b": 1\n"a\\nb": 1\n"": 1'),
            ['8:1: "a.b": unknown key', '9:1: "a\\nb": unknown key', '10:1: "": unknown key'],
        )

    def test_workers(self) -> None:
        """A number of processes, or one for each core that we may run on."""
        self.assertEqual([top(f"workers: {each}").workers for each in (1, 3, "${NONE:-2}")], [1, 3, 2])
        self.assertEqual(top("workers: auto").workers, len(os.sched_getaffinity(0)))
        self.assertEqual(top_mistakes("workers: 0"), ["8:1: workers: must be 1 or more (got 0)"])
        self.assertEqual(top_mistakes("workers: 257"), ["8:1: workers: must be 256 or less (got 257)"])
        self.assertEqual(top_mistakes("workers: yes"), ['8:1: workers: must be a whole number, or auto (got "yes")'])

    def test_watch(self) -> None:
        """Off is no boolean."""
        self.assertEqual(top_mistakes("watch: off"), ['8:1: watch: must be true or false (got "off")'])

    def test_watch_and_state_file(self) -> None:
        """A file is watched if that is asked for; the state file is relative to the configuration, and another one."""
        found = top("watch: true\nstate_file: run/state.json")
        self.assertEqual((found.watch, found.state_file), (True, os.path.join("etc", "run/state.json")))
        self.assertEqual(top("state_file: /var/lib/lbsvc/state.json").state_file, "/var/lib/lbsvc/state.json")
        self.assertEqual((top("").watch, top("").state_file), (False, None))
        for wrong in ("''", "'-'", "run/", '"a\\0"'):
            found_wrong = top_mistakes(f"state_file: {wrong}")
            self.assertEqual(
                [each.partition(" (got")[0] for each in found_wrong], ["8:1: state_file: must be the name of a file"]
            )
        message = (
            "8:1: state_file: cannot be the configuration itself: run-time changes are kept in a file of their own"
        )
        self.assertEqual(top_mistakes("state_file: ../etc/lb.yaml"), [message])

    def test_folder_of_the_state_file(self) -> None:
        """A folder that is missing is noted; not to who sends a text from elsewhere, who would learn by it what there is."""
        text = LISTENER + POOL + "state_file: %s\n"
        self.assertTrue(any("state_file: its folder does not exist" in note for note in load(text % "none/x").notes))
        self.assertFalse(any("state_file" in note for note in load(text % "/x").notes))
        self.assertFalse(any("state_file" in note for note in check_text(text % "none/x", "etc/lb.yaml")))

    def test_shutdown(self) -> None:
        """Nothing at all is a duration here."""
        self.assertEqual(top("shutdown: {delay: 1s, drain_timeout: 0, removed: null}").shutdown, ShutdownSettings(1, 0))
        self.assertEqual(top("shutdown: {removed: 5m}").shutdown, ShutdownSettings(removed=300.0))
        self.assertEqual(
            top_mistakes("shutdown: {delay: -1, removed: off}"),
            ["8:12: shutdown.delay: must be 0s or more (got -1)"],
        )

    def test_overload(self) -> None:
        """On unless it is switched off, at a second; not at what every busy moment brings, nor where nobody would wait."""
        self.assertEqual(top("").overload, OverloadSettings(1.0))
        self.assertEqual(top("overload: {lag: 250ms}").overload, OverloadSettings(0.25))
        for off in ("off", "false"):
            self.assertIsNone(top(f"overload: {off}").overload)
        self.assertEqual(
            top_mistakes("overload: {lag: 1ms, leg: 2}") + top_mistakes("overload: {lag: 2m}"),
            [
                '8:12: overload.lag: must be 50ms or more (got "1ms")',
                "8:22: overload.leg: unknown key (did you mean lag?)",
                '8:12: overload.lag: must be 60s or less (got "2m")',
            ],
        )

    def test_logs(self) -> None:
        """Paths are relative to the configuration's folder; - is standard output (FIELD-14)."""
        found = top(
            "access_log: {path: a.log, format: combined, sample: 5%}\nlog: {path: /var/b.log, level: debug, format: text}"
        )
        self.assertEqual(found.access_log, AccessLogSettings(os.path.join("etc", "a.log"), "combined", 0.05))
        self.assertEqual(found.log, LogSettings("/var/b.log", "debug", "text"))
        self.assertIsNone(top("access_log: off").access_log)
        self.assertEqual(
            top_mistakes("access_log: {path: '', format: jsno, sample: 1}\nlog: off"),
            [
                '8:14: access_log.path: must be the name of a file, or - (got "")',
                '8:24: access_log.format: must be json or combined (got "jsno"; did you mean json?)',
                "8:38: access_log.sample: must be a share from 0% to 100%, with the % sign (got 1)",
                '9:1: log: must be a mapping (got "off")',
            ],
        )
        self.assertEqual(
            top_mistakes("log: {level: warning}"),
            ['8:7: log.level: must be debug, info, warn or error (got "warning"; did you mean warn?)'],
        )

    def test_log_level_from_the_environment(self) -> None:
        """LOG_LEVEL overrides the level, in any case; one that is none is noted and ignored (FIELD-14)."""
        text = LISTENER + POOL + "log: {level: error}\n"
        for asked, level in {"DEBUG": "debug", "warning": "warn", "": "error", "trace": "error"}.items():
            self.assertEqual(settings(text, {"LOG_LEVEL": asked}).log.level, level)
        note = "etc/lb.yaml: log.level: LOG_LEVEL is none of debug, info, warn, error and is ignored"
        self.assertIn(note, load(text, {"LOG_LEVEL": "trace"}).notes)
        self.assertNotIn("LOG_LEVEL", "".join(load(text, {"LOG_LEVEL": ""}).notes))


class AdminTests(TestCase):
    def test_forms(self) -> None:
        """Off, or where it listens and who may ask."""
        self.assertIsNone(top("admin: off").admin)
        admin = top("admin: {read_only: true}").admin
        self.assertTrue(admin is not None and admin.read_only)
        found = top(
            "admin: {bind: '[::1]:0', hosts: [LB.example.com], token: s3cret, read_only: false, dashboard: false}"
        ).admin
        self.assertEqual(found, AdminSettings(Bind("::1", 0), ("lb.example.com",), "s3cret", dashboard=False))
        self.assertNotIn("s3cret", repr(found))

    def test_token(self) -> None:
        """A token is needed beyond loopback, and no message shows one."""
        self.assertEqual(
            top_mistakes("admin: {bind: ':9901'}"), ["8:8: admin.token: is required where bind is not loopback"]
        )
        for empty in ("''", "null", "${T:-}"):
            found = top_mistakes(f"admin:\n  bind: 10.0.0.1:9901\n  token: {empty}\n")
            self.assertEqual(
                found, ["10:3: admin.token: is required where bind is not loopback, and must not be empty"]
            )
        self.assertEqual(top_mistakes("admin: {bind: ':9901', token: '${T}'}", {"T": "12345"}), [])
        self.assertEqual(top_mistakes("admin: {bind: unix:a.sock}"), [])
        for wrong, message in {
            "12345": "must be text: quote it",
            "'a b'": "must be visible ASCII text without spaces",
        }.items():
            self.assertEqual(top_mistakes(f"admin: {{token: {wrong}}}"), [f"8:9: admin.token: {message}"])

    def test_short_token(self) -> None:
        """A token that could be found by trying is noted, what it is not; a longer one is not, nor a text not expanded."""
        for token, is_noted in (("a" * 15, True), ("a" * 16, False), ("''", False), ("'${T}'", True)):
            notes = load(f"{LISTENER}admin: {{token: {token}}}\n{POOL}", {"T": "short"}).notes
            self.assertEqual(
                (token, any("admin.token: has fewer than 16" in each for each in notes)), (token, is_noted)
            )
            self.assertNotIn("aaa", "".join(notes))
        self.assertNotIn("admin.token", "".join(check_text(f"{LISTENER}admin: {{token: '${{T}}'}}\n{POOL}", "x.yaml")))

    def test_mistakes(self) -> None:
        """What does not act yet, and what is no host."""
        self.assertEqual(
            top_mistakes("admin: {bind: unix:a, hosts: ['a:80', '*'], read_only: true, dashboard: true}"),
            [
                '8:31: admin.hosts[0]: must be a host name without a port (got "a:80")',
                '8:39: admin.hosts[1]: must be a host name without a port (got "*")',
            ],
        )
        self.assertEqual(top_mistakes("admin: 9901"), ["8:1: admin: must be a mapping, or off (got 9901)"])
        self.assertEqual(top_mistakes("admin: {bind: [':1']}"), ["8:9: admin.bind: must be text (got a list)"])

    def test_no_socket_of_systemd(self) -> None:
        """Sockets that systemd passes are for listeners."""
        rule = "host:port or unix:PATH: sockets that systemd passes are for listeners"
        self.assertEqual(
            top_mistakes("admin: {bind: 'systemd:web'}"), [f'8:9: admin.bind: must be {rule} (got "systemd:web")']
        )

    def test_dashboard(self) -> None:
        """It is on, but where it is switched off; anything but true and false is a mistake."""
        admin = top("admin: {}").admin
        self.assertTrue(admin is not None and admin.dashboard)
        self.assertEqual(top_mistakes("admin: {dashboard: maybe}"),
                         ['8:9: admin.dashboard: must be true or false (got "maybe")'])  # fmt: skip


class CrossingTests(TestCase):
    def test_pools_that_do_not_exist(self) -> None:
        """Every reference is checked, with what was probably meant; a pool that is wrong exists all the same."""
        text = "listeners:\n  a:\n    bind: 80\n    pool: wbe\n    routes:\n"
        text += "      - pool: api\n      - pool: web\npools:\n  web: {}\n"
        self.assertEqual(
            mistakes(text),
            [
                '4:5: listeners.a.pool: there is no pool of this name (got "wbe"; did you mean web?)',
                '6:9: listeners.a.routes[0].pool: there is no pool of this name (got "api")',
                "9:8: pools.web.backends: is required",
            ],
        )

    def test_ports_that_clash(self) -> None:
        """The later one is at fault, be it a listener's or the admin's."""
        text = (
            "listeners:\n  a: {bind: [':80', '127.0.0.1:80'], pool: p}\n  b: {bind: '0.0.0.0:9901', pool: p}\n" + POOL
        )
        self.assertEqual(
            mistakes(text),
            [
                '2:21: listeners.a.bind[1]: clashes with listeners.a.bind[0] in line 2 (got "127.0.0.1:80")',
                "3:7: listeners.b.bind: clashes with admin.bind, which is 127.0.0.1:9901 where it is not given "
                '(got "0.0.0.0:9901")',
            ],
        )
        self.assertEqual(
            mistakes(text.replace("[':80', '127.0.0.1:80']", "81") + "admin: {bind: 'localhost:9901'}\n"),
            ['7:9: admin.bind: clashes with listeners.b.bind in line 3 (got "localhost:9901")'],
        )
        self.assertEqual(mistakes(text.replace("[':80', '127.0.0.1:80']", "81") + "admin: off\n"), [])

    def test_sockets_that_clash(self) -> None:
        """One path is one socket, however it is written, and no port is asked of it."""
        text = "listeners:\n  a: {bind: [unix:x.sock, unix:y.sock, ':9902'], pool: p}\n"
        self.assertEqual(mistakes(text + POOL + "admin: {bind: unix:z.sock}\n"), [])
        self.assertEqual(
            mistakes(text + "  b: {bind: unix:./x.sock, pool: p}\n" + POOL + "admin: {bind: unix:../etc/y.sock}\n"),
            [
                '3:7: listeners.b.bind: clashes with listeners.a.bind[0] in line 2 (got "unix:./x.sock")',
                '7:9: admin.bind: clashes with listeners.a.bind[1] in line 2 (got "unix:../etc/y.sock")',
            ],
        )

    def test_places(self) -> None:
        """Each key's place is kept, for what the system refuses later."""
        text = "listeners:\n  a: {bind: 80, pool: p}\n" + POOL + "access_log:\n  path: x.log\n"
        places = load(text).places
        self.assertEqual((places["listeners.a.bind"], places["access_log.path"]), ((2, 7), (7, 3)))
