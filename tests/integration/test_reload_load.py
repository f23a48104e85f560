"""Reloads under load, with the real process: no request fails, and nothing is left behind in memory or descriptors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.cases import ProcessTestCase, config
from tests.kit.operating import Operator, descriptors, fresh_requests, h2_requests
from tests.kit.processes import answers, free_port, free_ports, get, until
from tests.kit.programs import Wrk

#: What the second fifty of a hundred reloads may add to what is resident, in bytes, and to what is open.
MOST_GROWN = 8 << 20
MOST_OPENED = 64


class LoadedCase(ProcessTestCase):
    """A service with one http and one tcp listener before nginx, and loads on both that count each error."""

    def setUp(self) -> None:
        self.ports = free_ports(4)
        block = 'server {{ listen 127.0.0.1:{0}; keepalive_requests 10000000; location / {{ return 200 "{0}"; }} }}'
        self.nginx("".join(block.format(port) for port in self.ports), self.ports[0])
        self.addresses = [f"127.0.0.1:{port}" for port in self.ports]
        self.port, self.tcp_port, admin = free_ports(3)
        check = {"type": "http", "path": "/", "interval": "500ms"}
        pools = {
            "web": {"backends": self.addresses[:2], "health_check": check},
            "raw": {"backends": self.addresses[:2], "health_check": "off"},
        }
        text = config({"main": self.main(), "raw": self.raw()}, pools, admin=admin, access_log="off")
        self.balancer = self.start(text).ready()
        self.operator = Operator(self.balancer)
        folder = self.scratch()
        self.wrks = {"http": self.wrk(self.port, folder), "tcp": self.wrk(self.tcp_port, folder)}
        self.loads = {"http": fresh_requests(self.port), "tcp": fresh_requests(self.tcp_port)}
        for load in self.loads.values():
            self.addCleanup(load.stop)
        until(lambda: self.balancer.metric("lbsvc_backend_requests_total", pool="web") > 500, "under load")

    def main(self, **more: Any) -> dict[str, Any]:
        return {"bind": f"127.0.0.1:{self.port}", "pool": "web", **more}

    def raw(self, **more: Any) -> dict[str, Any]:
        return {"bind": f"127.0.0.1:{self.tcp_port}", "protocol": "tcp", "pool": "raw", **more}

    def wrk(self, port: int, folder: Path) -> Wrk:
        load = Wrk(f"http://127.0.0.1:{port}/", folder=folder, connections=16)
        self.addCleanup(load.stop)
        return load

    def go_on(self, count: int = 5) -> None:
        """Until so many more requests were made on new connections of each listener."""
        for load in self.loads.values():
            load.wait(count)

    def assert_unharmed(self) -> None:
        """Everything asked so far was answered 200."""
        self.go_on()
        for name, load in self.loads.items():
            self.assertEqual(load.end(), {}, name)
        for name, wrk in self.wrks.items():
            report = wrk.end()
            self.assertEqual(report.errors, {}, name)
            self.assertGreater(report.requests, 500, name)


class HundredTests(LoadedCase):
    def change(self, number: int) -> None:
        """Other weights, a backend that comes and one that goes, in both pools, and so with a route."""
        pools = self.operator.tree["pools"]
        a, b, c, d = self.addresses
        weighted = [
            {"address": a, "name": "a", "weight": 1 + number % 5},
            {"address": b, "name": "b", "weight": 1 + number % 3},
        ]
        pools["web"]["backends"] = [*weighted, {"address": c if number % 2 else d, "name": f"n{number}"}]
        pools["raw"]["backends"] = [weighted[0], {"address": d if number % 2 else c}]
        routes = [{"match": {"path": f"/only-{number % 2}/*"}, "pool": "web"}]
        if number % 3:
            routes.append({"match": {"path": "/*"}, "name": "all", "pool": "web"})
        self.operator.tree["listeners"]["main"]["routes"] = routes

    def test_cost_nothing(self) -> None:
        """A hundred reloads in a row, of weights, backends and routes: no failed request, no memory, no descriptors
        (RT-1, V13)."""
        h2 = h2_requests(self.port, self.scratch())
        self.addCleanup(h2.stop)
        h2.wait(1)
        resident, opened = [], []
        for number in range(100):
            self.change(number)
            changes = self.operator.apply()
            self.assertIn(f"pools.web.backends.n{number}: added", changes)
            self.go_on(1)
            if number in (49, 99):
                resident.append(self.balancer.resident)
                opened.append(descriptors(self.balancer.pid))
        h2.wait(1)
        self.assertEqual(h2.end(), {})
        self.assert_unharmed()
        self.assertEqual(self.balancer.metric("lbsvc_config_reloads_total", result="success"), 100)
        self.assertEqual(self.balancer.metric("lbsvc_config_info", generation="101"), 1)
        self.assertLess(resident[1] - resident[0], MOST_GROWN)
        self.assertLess(opened[1] - opened[0], MOST_OPENED)
        until(lambda: len(self.operator.api("GET", "/pools/web").value["backends"]) == 3, "removed ones gone")
        until(lambda: len(self.operator.api("GET", "/pools/raw").value["backends"]) == 2, "removed ones gone")
        series = self.balancer.admin("/metrics")[1]
        self.assertNotIn(b'backend="n98"', series)
        self.assertEqual([event["message"] for event in self.balancer.events() if event["level"] == "error"], [])

    def test_by_admin_calls(self) -> None:
        """The same by a hundred rounds of admin calls: backends that come, change and go (RT-1, RT-2)."""
        for number in range(100):
            path = "/pools/web/backends"
            body = {"address": self.addresses[2], "name": "guest", "weight": 1 + number % 4}
            self.assertEqual(self.operator.api("POST", path, body).status, 201)
            self.operator.set("web", "guest", weight=9)
            self.operator.set("web", self.addresses[0], state="drain" if number % 2 else "ready")
            self.assertEqual(self.operator.api("DELETE", f"{path}/guest").status, 202)
            self.operator.wait_until_gone("web", "guest")
            if number == 49:
                resident, opened = self.balancer.resident, descriptors(self.balancer.pid)
        self.assertLess(self.balancer.resident - resident, MOST_GROWN)
        self.assertLess(descriptors(self.balancer.pid) - opened, MOST_OPENED)
        self.assert_unharmed()


class ListenersTests(LoadedCase):
    def step(self, **listeners: Any) -> list[str]:
        """Have these listeners, while requests go on."""
        self.operator.tree["listeners"] = listeners
        changes = self.operator.apply()
        self.go_on()
        return changes

    def test_others_change(self) -> None:
        """Listeners come, move and go, and listeners are renamed and change places: what is asked elsewhere never fails."""
        first, second = free_ports(2)

        def third(port: int) -> dict[str, Any]:
            return {"bind": f"127.0.0.1:{port}", "pool": "web"}

        self.assertEqual(
            self.step(main=self.main(), raw=self.raw(), third=third(first)),
            ["listeners.third: added"],
        )
        self.assertEqual(get(first).status, 200)
        self.step(main=self.main(), raw=self.raw(), third=third(second))
        self.assertEqual(get(second).status, 200)
        until(lambda: not answers(first), "the former address closed")
        self.step(renamed=self.main(), raw=self.raw(), third=third(second))
        self.step(renamed=self.raw(), raw=self.main(), third=third(second))
        self.step(main=self.main(), raw=self.raw())
        until(lambda: not answers(second), "the removed one closed")
        both = [f"127.0.0.1:{self.port}", f"127.0.0.1:{second}"]
        self.step(main=self.main(bind=both), raw=self.raw())
        self.step(main=self.main(), raw=self.raw(), other=third(second))
        self.assertEqual(get(second).status, 200)
        self.step(main=self.main(max_connections=500, backlog=64, timeouts={"keep_alive": "5s"}), raw=self.raw())
        self.step(main=self.main(), raw=self.raw())
        self.assert_unharmed()

    def test_taken(self) -> None:
        """Where one of several binds is taken nothing changes, also where another one had to close to try."""
        taken = {"bind": self.addresses[0], "pool": "web"}
        for number in range(10):
            bind = f":{self.port}" if number % 2 else f"0.0.0.0:{self.port}"
            self.operator.tree["listeners"] = {"main": self.main(bind=bind), "raw": self.raw(), "x": taken}
            answer = self.operator.reload()
            self.assertEqual(answer.status, 422)
            (error,) = answer.value["errors"]
            self.assertIn(f"listeners.x.bind: cannot listen on {self.addresses[0]}: Address already in use", error)
            self.assertRegex(error, r"lb\.yaml:\d+:\d+: ")
            self.assertEqual(get(self.port).status, 200)
        bound = {each["name"]: each["bind"] for each in self.operator.api("GET", "/status").value["listeners"]}
        self.assertEqual(bound, {"main": f"127.0.0.1:{self.port}", "raw": f"127.0.0.1:{self.tcp_port}"})
        self.go_on()
        for name, wrk in self.wrks.items():
            self.assertEqual(wrk.end().errors, {}, name)

    def test_wider_and_narrower(self) -> None:
        """Binds that overlap take each other's place: connections that are there go on, and none is forgotten in a queue."""
        local, port = self.main()["bind"], self.port
        for bind in (f":{port}", local, f"0.0.0.0:{port}", f":{port}", [local, f"[::1]:{port}"], local):
            self.step(main=self.main(bind=bind), raw=self.raw())
            self.assertEqual(get(port).status, 200)
        for name, wrk in self.wrks.items():
            self.assertEqual(wrk.end().errors, {}, name)
        self.assertEqual(self.loads["tcp"].end(), {})

    def test_protocols_swapped(self) -> None:
        """http becomes tcp and back on the same sockets: new connections by the new rules, old ones by the old."""
        for _ in range(3):
            self.step(main=self.main(protocol="tcp"), raw=self.raw(protocol="http"))
            self.step(main=self.main(), raw=self.raw())
        self.assert_unharmed()

    def test_pool_replaced(self) -> None:
        """A listener goes over to another pool, and the former pool goes: no request is lost between them."""
        pools = self.operator.tree["pools"]
        for number in range(10):
            name = f"web{number}"
            pools.clear()
            pools[name] = {"backends": self.addresses[number % 2 :][:2]}
            pools["raw"] = {"backends": self.addresses[:2], "health_check": "off"}
            self.step(main=self.main(pool=name), raw=self.raw())
        shown = [each["name"] for each in self.operator.api("GET", "/pools").value]
        self.assertIn("web9", shown)
        until(lambda: len(self.operator.api("GET", "/pools").value) == 2, "former pools gone")
        self.assert_unharmed()


class BusyTests(ProcessTestCase):
    def test_all_at_once(self) -> None:
        """Reloads that are asked for all at once come one after the other, and each is answered."""
        balancer, port = self.serve(listener={"routes": [{"match": {"path": "/*"}, "respond": {"status": 200}}]})
        operator = Operator(balancer)
        load = fresh_requests(port)
        self.addCleanup(load.stop)

        def ask(number: int) -> int:
            if number % 4 == 0:
                balancer.signal(1)
                return 200
            return operator.api("POST", "/reload").status

        self.assertEqual(set(self.at_once(24, ask)), {200})
        until(lambda: balancer.metric("lbsvc_config_reloads_total", result="success") >= 19, "all done")
        load.wait(5)
        self.assertEqual(load.end(), {})

    def test_first_minute(self) -> None:
        """A reload that is asked for before the first checks are over is applied; ready is said when they are."""
        dead, port, admin = free_port(), *free_ports(2)
        check = {"type": "tcp", "interval": "1s", "timeout": "1s"}
        text = config(
            {"main": {"bind": f"127.0.0.1:{port}", "pool": "web"}},
            {"web": {"backends": [f"192.0.2.1:{dead}"], "health_check": check}},
            admin=admin,
        )
        balancer = self.start(text)
        until(lambda: answers(admin), "the admin interface answers")
        operator = Operator(balancer)
        operator.tree["pools"]["web"]["backends"].append(f"127.0.0.1:{dead}")
        self.assertEqual(operator.apply(), [f"pools.web.backends.127.0.0.1:{dead}: added"])
        balancer.ready()
