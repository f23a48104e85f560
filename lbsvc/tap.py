"""The command line of `twist loadbalancer`: options, the configuration they name, the reactor; nothing else.

Promises: a wrong configuration ends with exit code 78 and what the system refuses with 71, each mistake on one line of
standard error, without traceback or usage text; wrong usage with 64 (twist does that). Our own reactor is installed if none
is there yet: twist installs its default only after these options have been parsed, and `twist --reactor NAME` before. A
signal that asks for a reload and the like waits from here on until the reactor runs (signals.py), instead of killing us. A
process whose place we are to take (net/inheriting.py) is told of every mistake, too.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError
from typing_extensions import override

from lbsvc import __version__, is_compiled
from lbsvc.config.loader import Loaded, from_options, load_file
from lbsvc.errors import ConfigErrors, SystemRefusal
from lbsvc.net.inheriting import Inherited, take_inherited
from lbsvc.reaping import end_early
from lbsvc.signals import hold_signals
from lbsvc.watching import Known, known

EX_OSERR = 71
EX_CONFIG = 78


class Options(UsageOptions):
    """Options of `twist loadbalancer`."""

    synopsis = "[--config FILE [--check] | --listen ADDRESS --backends URL,... [--algorithm NAME]]"
    longdesc = "A load balancer for TCP and HTTP. See the README and etc/lb.yaml."

    optParameters = [  # noqa: N815 - Twisted's name
        ["config", "c", None, "configuration file (YAML)"],
        ["listen", "l", None, "without a file: address to listen on, such as :8080"],
        ["backends", "b", None, "without a file: comma-separated backends, such as http://127.0.0.1:8001"],
        [
            "algorithm",
            "a",
            None,
            "without a file: round_robin, least_connections, ..., a usual short name, or a plugin's",
        ],
    ]
    optFlags = [  # noqa: N815 - Twisted's name
        ["check", None, "check the configuration, say what is wrong with it, and exit"],
    ]

    loaded: Loaded
    #: the configuration file as it was before it was read; None where there is none
    before: Known | None = None
    #: what the process that started us hands over; None: nobody does
    inherited: Inherited | None = None

    def __init__(self) -> None:
        hold_signals()
        super().__init__()
        try:
            self.inherited = take_inherited(os.environ, os.getpid(), os.getppid())
        except SystemRefusal as refusal:
            fail(EX_OSERR, refusal)

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        sys.stdout.write(f"lbsvc {__version__}{', compiled' if is_compiled() else ''}\n")
        sys.exit(0)

    @override
    def postOptions(self) -> None:
        file = self["config"]
        given = [name for name in ("listen", "backends", "algorithm") if self[name] is not None]
        if file is not None and given:
            raise UsageError(f"--config and --{given[0]} exclude each other")
        if file is None and not given:
            raise UsageError("give --config FILE, or --listen and --backends")
        if file is None and (self["listen"] is None or self["backends"] is None):
            raise UsageError("without --config, both --listen and --backends are needed")
        try:
            if file is not None:
                self.before = known(file)
                self.loaded = load_file(file, os.environ, is_start=True)
            else:
                self.loaded = from_options(self["listen"], self["backends"], self["algorithm"], os.environ)
        except ConfigErrors as errors:
            fail(EX_CONFIG, errors, self.inherited)
        end_early(os.getpid())
        if self["check"]:
            for note in self.loaded.notes:
                sys.stderr.write(f"{note}\n")
            sys.stdout.write(f"{file or 'command line'}: ok\n")
            sys.stdout.flush()
            sys.exit(0)
        install_reactor()


def install_reactor() -> None:
    """Ours, if none has been chosen and the platform has epoll."""
    if "twisted.internet.reactor" in sys.modules:
        return
    try:
        from lbsvc.net.reactor import install
    except ImportError:
        return  # no epoll here: Twisted's default works as well, only slower
    install()


def fail(code: int, errors: ConfigErrors | SystemRefusal, inherited: Inherited | None = None) -> NoReturn:
    """Every mistake on a line of its own; and to the process whose place we were to take."""
    sys.stderr.write("".join(f"{mistake}\n" for mistake in errors.mistakes))
    sys.stderr.flush()
    if inherited is not None:
        inherited.fail(map(str, errors.mistakes))
    sys.exit(code)


def makeService(options: Options) -> IService:  # noqa: N802 - the name that twist asks for
    """The service, ready to be started."""
    from twisted.internet import reactor

    from lbsvc.app import Balancer

    file = options["config"]
    balancer: Any = Balancer(
        options.loaded,
        file or "command line",
        reactor,
        os.environ,
        refuse=lambda errors: fail(EX_OSERR, errors, options.inherited),
        load=partial(load_file, file, os.environ) if file is not None else None,
        before=options.before,
        inherited=options.inherited,
    )
    return balancer  # type: ignore[no-any-return]
