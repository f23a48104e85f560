"""lbsvc: a load balancer for TCP and HTTP, as a Twisted plugin (`twist loadbalancer`).

The floors, imports go down only (tests/test_floors.py checks it):

7 tap, ctl            options of the command line, which choose the reactor; lbctl
6 app, reloading      composition root: settings in, one MultiService out; how other settings come into force while it runs
  pools, listening    what obeys them: live pools and their members, listeners and their routes, logs, the admin listener
  traffic, workers    what carries traffic: this process, or several that it starts, tells and watches
  upgrading           the next program in this one's place
5 observe, admin      metrics, access log, events, history; the admin listener: API and dashboard
4 http                layer 7: codec, server and client roles, the exchange (the layer 7 road)
3 net                 reactor, listeners, dialling, the relay (the layer 4 road), probes, names, drain
2 config, plugin      YAML to frozen settings, every mistake with its place
1 core                decisions and books: pools, pickers, health, retries, routes; no sockets, no clock of its own
0 errors              what can go wrong, and the word for it

Both roads walk the same milestones: match, admit, choose, open, carry, settle. Words: downstream is towards the client,
upstream towards the backend; a pick gives a lease that is released once, with an outcome.
"""

from importlib.util import find_spec

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Whether what requests run through has been compiled (etc/compiled/hook.py), rather than being Python."""
    found = find_spec("lbsvc.http.exchange")
    return found is not None and not str(found.origin).endswith(".py")
