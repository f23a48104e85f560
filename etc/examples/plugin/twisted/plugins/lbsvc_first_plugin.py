"""Tells lbsvc that there is an algorithm `first`, and where; nothing of it is imported before a configuration names it."""

from lbsvc.plugin import Algorithm

first = Algorithm("first", "lbsvc_first.First")
