"""Tells `twist` that the command `loadbalancer` exists.

Four strings: nothing of ours is imported at discovery, so a broken install of ours never breaks another plugin.
"""

from twisted.application.service import ServiceMaker

loadbalancer = ServiceMaker(
    "lbsvc load balancer",
    "lbsvc.tap",
    "A load balancer for TCP and HTTP: health checks, metrics, draining shutdown.",
    "loadbalancer",
)
