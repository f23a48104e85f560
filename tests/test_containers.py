"""The Dockerfile and the compose file, read: what they promise, and that what they name is there. OPS-1, OPS-3, OPS-7.

No engine runs on the machines of these tests. The image's commands are run in tests/integration/test_image.py.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import PurePosixPath

import yaml
from twisted.trial.unittest import TestCase

from lbsvc.config.loader import load_file
from lbsvc.config.schema import Settings
from tests.kit.docker import FOLDER, all_of, backends, compose, exec_form, one_of, services, stages
from tests.kit.monitoring import ETC
from tests.kit.processes import ROOT

#: What a service of a compose file may say, as far as ours do.
KEYS = {
    *("build", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck", "image", "ports"),
    *("profiles", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "ulimits", "volumes"),
}


def balancer() -> Settings:
    """The configuration that the compose file mounts."""
    return load_file(str(FOLDER / "balancer.yml"), {"LBSVC_ADMIN_TOKEN": "a-token-of-these-tests"}).settings


class DockerfileTests(TestCase):
    def test_two_stages_of_one_base(self) -> None:
        """What builds stays behind: the second stage takes the environment, and runs nothing (OPS-3)."""
        build, final = stages()
        self.assertEqual((build[0], final[0]), (("FROM", "${PYTHON_IMAGE} AS build"), ("FROM", "${PYTHON_IMAGE}")))
        self.assertEqual(all_of(final, "RUN"), [])
        self.assertEqual(all_of(final, "COPY")[0], "--from=build /opt/lbsvc /opt/lbsvc")

    def test_not_root(self) -> None:
        """The user is a number, and not 0 (OPS-3)."""
        self.assertRegex(one_of(stages()[1], "USER"), r"^[1-9]\d{3,}:[1-9]\d{3,}$")

    def test_signals_reach_the_service(self) -> None:
        """TERM is what stops it, and no shell stands before it."""
        final = stages()[1]
        self.assertEqual(one_of(final, "STOPSIGNAL"), "SIGTERM")
        self.assertEqual(exec_form(one_of(final, "ENTRYPOINT")), ["twist", "loadbalancer"])
        self.assertEqual(exec_form(one_of(final, "CMD")), ["--config", "/etc/lbsvc/lb.yaml"])
        self.assertEqual(exec_form(one_of(final, "HEALTHCHECK"))[:2], ["python", "-c"])

    def test_all_that_is_copied_is_there(self) -> None:
        """Every source is in the tree, and none is kept from the build by the list of what it may not see."""
        lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
        allowed = [line[1:] for line in lines if line.startswith("!")]
        self.assertIn("*", lines)
        copied = [each.split()[:-1] for stage in stages() for each in all_of(stage, "COPY") if "--from" not in each]
        for source in (each for sources in copied for each in sources):
            self.assertTrue((ROOT / source).exists(), source)
            self.assertTrue(any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source)

    def test_configuration(self) -> None:
        """Without a file of one's own the image answers on the port that it exposes, and the check finds its admin
        (OPS-3)."""
        settings = load_file(str(FOLDER / "lb.yaml"), {}).settings
        assert settings.admin is not None
        self.assertEqual([str(bind) for bind in settings.listeners["web"].binds], ["0.0.0.0:8080"])
        self.assertEqual(one_of(stages()[1], "EXPOSE").split(), ["8080", str(settings.admin.bind.port)])
        self.assertIn(f"'127.0.0.1', {settings.admin.bind.port}", one_of(stages()[1], "HEALTHCHECK"))


class ComposeTests(TestCase):
    def test_services(self) -> None:
        """A balancer, five backends, Prometheus, Grafana, and a load that only runs when asked for (OPS-1, OPS-2)."""
        names = {"balancer", "load", "prometheus", "grafana", *(f"backend-{number}" for number in range(1, 6))}
        self.assertEqual(set(services()), names)
        self.assertEqual([name for name, each in services().items() if "profiles" in each], ["load"])
        self.assertEqual(set(compose()) - {"name", "services", "volumes"}, {"x-image", "x-confined", "x-check"})

    def test_keys(self) -> None:
        """No service says what Compose does not know, and each has an image with a tag, or one that is built here."""
        for name, service in services().items():
            self.assertEqual(set(service) - KEYS, set(), name)
            if "build" in service:
                context = (FOLDER / service["build"]["context"]).resolve()
                self.assertEqual(context, ROOT)
                self.assertTrue((context / service["build"]["dockerfile"]).is_file())
            else:
                self.assertRegex(service["image"], r"^[a-z]+/[a-z]+:v?\d+\.\d+\.\d+$")

    def test_what_is_mounted_is_there(self) -> None:
        """Each mount is a named volume that is declared, or something of the tree, which nobody may write to (OPS-3,
        V18)."""
        for service in services().values():
            for volume in service.get("volumes", ()):
                source, _, rest = volume.partition(":")
                if source.startswith("."):
                    self.assertTrue((FOLDER / source).resolve().exists(), volume)
                    self.assertTrue(rest.endswith(":ro"), volume)
                else:
                    self.assertIn(source, compose()["volumes"])

    def test_only_traffic_is_public(self) -> None:
        """The admin listener, Prometheus and Grafana are published on loopback; port 8080 is for everybody."""
        ports = [port for service in services().values() for port in service.get("ports", ())]
        public = [port for port in ports if not port.startswith("127.0.0.1:")]
        self.assertEqual((public, len(ports)), (["8080:8080"], 4))

    def test_no_secret_is_written_down(self) -> None:
        """The token must be given: an empty one is refused before anything is started. Nobody can be Grafana's admin."""
        token = services()["balancer"]["environment"]["LBSVC_ADMIN_TOKEN"]
        self.assertTrue(token.startswith("${LBSVC_ADMIN_TOKEN:?"))
        grafana = services()["grafana"]["environment"]
        self.assertEqual(grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"], "true")
        self.assertEqual([key for key in grafana if "PASSWORD" in key], [])

    def test_what_runs_is_confined(self) -> None:
        """No service that stays may write to its root or has a capability."""
        for name in set(services()) - {"load"}:
            service = services()[name]
            self.assertEqual((service["read_only"], service["cap_drop"]), (True, ["ALL"]), name)

    def test_time_to_drain(self) -> None:
        """Docker waits longer than the balancer takes to drain."""
        patience = re.fullmatch(r"(\d+)s", services()["balancer"]["stop_grace_period"])
        assert patience is not None
        self.assertGreater(int(patience[1]), balancer().shutdown.drain_timeout)

    def test_each_backend_is_balanced(self) -> None:
        """The balancer's backends are the services, each by its name and on the port that it listens on, 8001 to 8005
        (OPS-2)."""
        (pool,) = balancer().pools.values()
        configured = [(each.name, each.host, each.port) for each in pool.backends]
        options = {name: dict(zip(*[iter(each["command"])] * 2, strict=True)) for name, each in backends().items()}
        started = [(each["--name"], name, int(each["--port"])) for name, each in options.items()]
        self.assertEqual(configured, started)
        self.assertEqual([port for *_, port in configured], [8001, 8002, 8003, 8004, 8005])
        for name, service in backends().items():
            self.assertEqual(service["environment"], {"PORT": options[name]["--port"]})
            self.assertIn("os.environ['PORT']", service["healthcheck"]["test"][-1])

    def test_dead_within_five_seconds(self) -> None:
        """What the checks need to find that a backend has stopped: the failures, a pause before each, jitter
        (OPS-1)."""
        (pool,) = balancer().pools.values()
        check = pool.health_check
        assert check is not None
        self.assertLess(check.fall * (check.interval * 1.1 + check.timeout), 5)

    def test_prometheus_scrapes_the_balancer(self) -> None:
        """What Prometheus is given is mounted where its configuration looks, and its target is the admin listener."""
        admin = balancer().admin
        assert admin is not None
        (target,) = yaml.safe_load((FOLDER / "targets/lbsvc.yml").read_text())
        self.assertEqual(target["targets"], [f"balancer:{admin.bind.port}"])
        mounted = dict(each.split(":")[:2] for each in services()["prometheus"]["volumes"])
        written = yaml.safe_load((ETC / "prometheus/prometheus.yml").read_text())
        files = [*written["rule_files"], *written["scrape_configs"][0]["file_sd_configs"][0]["files"]]
        for file in files:
            self.assertIn(str(PurePosixPath("/etc/prometheus") / PurePosixPath(file).parent), mounted.values())

    def test_grafana_finds_its_boards(self) -> None:
        """The folder that is provisioned is the one that is mounted, and its data source is the service."""
        mounted = dict(each.split(":")[:2] for each in services()["grafana"]["volumes"])
        (provider,) = yaml.safe_load((ETC / "grafana/provisioning/dashboards/lbsvc.yml").read_text())["providers"]
        self.assertEqual(mounted["../grafana/dashboards"], provider["options"]["path"])
        (source,) = yaml.safe_load((ETC / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
        self.assertEqual(source["url"], "http://prometheus:9090")
