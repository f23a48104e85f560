"""etc/scripts/rolling-update.sh and scale-out.sh where something is wrong: they end with 1, and say what they leave."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.integration.moody import MoodyTestCase
from tests.kit.moods import MoodyBackend
from tests.kit.operating import Operator
from tests.kit.processes import ROOT, free_ports, run, until

SCRIPTS = ROOT / "etc" / "scripts"
TOKEN = "sesame"

#: A pool's backend that nobody listens for is down at once.
QUICK = {"type": "tcp", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 1}


class ScriptCase(MoodyTestCase):
    """A script is run to its end; each of its waits has a second."""

    def script(self, name: str, *arguments: str, admin: int, **env: str) -> subprocess.CompletedProcess[bytes]:
        env = {"LBCTL_ADMIN": f"http://127.0.0.1:{admin}", "WAIT": "1", **env}
        return run([str(SCRIPTS / name), *arguments], env=env)

    def assert_gives_up(self, done: subprocess.CompletedProcess[bytes], *words: str) -> None:
        """It has failed, in words, of which these are some."""
        said = done.stderr.decode()
        self.assertEqual(done.returncode, 1, said)
        self.assertNotIn("Traceback", said)
        for each in words:
            self.assertIn(each, said)

    def states(self, operator: Operator) -> dict[str, Any]:
        """What people have set, by backend."""
        return {each["name"]: each["state"] for each in operator.api("GET", "/pools/web/backends").value}


class UnreachableTests(ScriptCase):
    def test_no_admin(self) -> None:
        """Where nobody listens, or what listens is no admin interface, or refuses the token, nothing is done."""
        (nobody,) = free_ports(1)
        backend = self.moody("a")[0]
        balancer, _ = self.serve(backend.address)
        operator = Operator(balancer)
        operator.tree["admin"]["token"] = TOKEN
        operator.apply()
        ran = self.scratch() / "ran"
        rolling, adding = ("rolling-update.sh", "web", "touch", str(ran)), ("scale-out.sh", "web", "127.0.0.1:9")
        for script, words in ((rolling, "the backends of web cannot be listed"), (adding, "cannot be added to web")):
            done = self.script(*script, admin=nobody)
            self.assert_gives_up(done, "Failed to connect", words, "nothing was changed")
            done = self.script(*script, admin=balancer.admin_port, LBCTL_TOKEN="wrong")
            self.assert_gives_up(done, "401", words, "nothing was changed")
        self.assert_gives_up(self.script(*rolling, admin=backend.port), "this is not an answer of the admin interface")
        self.assertFalse(ran.exists())
        done = self.script(*rolling[:2], "sh", "-c", f"touch {ran}", admin=balancer.admin_port, LBCTL_TOKEN=TOKEN)
        self.assertEqual((done.returncode, done.stdout), (0, f"{backend.address} is updated\n".encode()))
        self.assertTrue(ran.exists())

    def test_waits_that_are_none(self) -> None:
        """WAIT and WEIGHT are whole numbers."""
        for script in (("rolling-update.sh", "web", "true"), ("scale-out.sh", "web", "127.0.0.1:9")):
            for wait in ("1m", "-1", "x"):
                self.assertEqual(self.script(*script, admin=1, WAIT=wait).returncode, 64)
        self.assertEqual(self.script("scale-out.sh", "web", "127.0.0.1:9", "x", admin=1).returncode, 64)


class RollingTests(ScriptCase):
    def setUp(self) -> None:
        self.backends: list[MoodyBackend] = self.moody("abc")
        self.balancer, self.port = self.before(self.backends, health_check=QUICK)
        self.operator = Operator(self.balancer)
        for name in "abc":
            self.await_state(self.balancer, name, "up")

    def rolling(self, *command: str, pool: str = "web") -> subprocess.CompletedProcess[bytes]:
        return self.script("rolling-update.sh", pool, *command, admin=self.operator.port)

    def test_nothing_to_do(self) -> None:
        """An unknown pool, one without backends, and one of which none is ready are no success."""
        self.assert_gives_up(self.rolling("true", pool="no pool"), "404", "the backends of no pool cannot be listed")
        for name in "abc":
            self.operator.set("web", name, state="maint")
        self.assert_gives_up(self.rolling("true"), "has no backend that is ready", "nothing was changed")
        for name in "abc":
            self.operator.api("DELETE", f"/pools/web/backends/{name}")
            self.operator.wait_until_gone("web", name)
        self.assert_gives_up(self.rolling("true"), "the pool web has no backends", "nothing was changed")

    def test_left_alone(self) -> None:
        """What somebody has put in maint or drain is not touched, and not made ready."""
        self.operator.set("web", "a", state="maint")
        self.operator.set("web", "b", state="drain")
        done = self.rolling("echo", "now")
        self.assertEqual(done.returncode, 0, done.stderr)
        c = self.backends[2]
        self.assertEqual(
            done.stdout.decode().splitlines(),
            [
                "a is in maint: it is left alone",
                "b is in drain: it is left alone",
                f"now c {c.address}",
                "c is updated",
            ],
        )
        self.assertEqual(self.states(self.operator), {"a": "maint", "b": "drain", "c": "ready"})

    def test_never_empty(self) -> None:
        """A backend that goes on with what it has for too long stays in drain, and the next ones are not touched."""
        self.hold(self.port, self.backends, 3)
        self.assert_gives_up(self.rolling("true"), "a is not empty after 1 seconds; a stays in drain")
        self.assertEqual(self.states(self.operator), {"a": "drain", "b": "ready", "c": "ready"})
        for each in self.backends:
            each.let_go()

    def test_not_updated(self) -> None:
        """A command that fails leaves its backend in maint."""
        self.assert_gives_up(self.rolling("false"), "a could not be updated; a stays in maint")
        self.assertEqual(self.states(self.operator), {"a": "maint", "b": "ready", "c": "ready"})

    def test_never_up(self) -> None:
        """A backend that does not come back ends it: the next ones go on with the release before."""
        self.backends[0].stop()
        self.assert_gives_up(self.rolling("true"), "a is not up after 1 seconds; a stays ready")
        self.assertEqual(self.states(self.operator), {"a": "ready", "b": "ready", "c": "ready"})

    def test_removed_meanwhile(self) -> None:
        """A backend that somebody removes while it is updated ends it."""
        remove = ["curl", "-qsS", "-X", "DELETE", f"http://127.0.0.1:{self.operator.port}/api/v1/pools/web/backends/a"]
        self.assert_gives_up(
            self.rolling("sh", "-c", " ".join(remove)), "404", "a is updated, and cannot be made ready"
        )

    def test_gone_meanwhile(self) -> None:
        """An admin interface that goes away while a backend is waited for ends it."""
        self.hold(self.port, self.backends, 3)
        env = {"WAIT": "60"}

        def job(number: int) -> Any:
            if number == 0:
                return self.script("rolling-update.sh", "web", "true", admin=self.operator.port, **env)
            until(lambda: self.states(self.operator)["a"] == "drain", "a is waited for")
            return self.balancer.stop()

        done, _ = self.at_once(2, job)
        self.assert_gives_up(done, "a stays in drain")
        for each in self.backends:
            each.let_go()


class ScaleOutTests(ScriptCase):
    def test_never_up(self) -> None:
        """A backend that does not come up stays in the pool, which is said; an unknown pool, or a second of the name, is
        refused."""
        (nobody,) = free_ports(1)
        (backend,) = self.moody("a")
        balancer, _ = self.before([backend], health_check=QUICK)
        new = f"127.0.0.1:{nobody}"
        done = self.script("scale-out.sh", "web", new, admin=balancer.admin_port)
        self.assert_gives_up(done, f"{new} is down after 1 seconds; it stays in the pool")
        self.assertEqual(self.states(Operator(balancer)), {"a": "ready", new: "ready"})
        done = self.script("scale-out.sh", "web", new, admin=balancer.admin_port)
        self.assert_gives_up(done, "409", f"{new} cannot be added to web; nothing was changed")
        done = self.script("scale-out.sh", "no pool", new, admin=balancer.admin_port)
        self.assert_gives_up(done, "404", f"{new} cannot be added to no pool; nothing was changed")
