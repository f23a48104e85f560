"""What others need to add a balancing algorithm of theirs: this module, and nothing else of ours.

An algorithm is a class that inherits from `Picker` (its contract is in core/pickers.py), and a plugin of Twisted's that
gives it a name: a file in a folder `twisted/plugins` beside their package, where all there is to say is

    from lbsvc.plugin import Algorithm
    first = Algorithm("first", "their_package.First")

After that `algorithm: first` may stand in a configuration. etc/examples/plugin is a whole package of this kind.

Promises: these names stay as they are. The class is imported only where a configuration asks for it, so that an
algorithm that is broken stops nobody who does not use it. Read by config/extensions.py; imports nothing heavy, for
`twist` may import it for any of its commands.
"""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface, implementer

from lbsvc.core.backend import Backend
from lbsvc.core.pickers import Picker

__all__ = ["Algorithm", "Backend", "IAlgorithm", "Picker"]


class IAlgorithm(Interface):
    """A plugin that adds a balancing algorithm."""

    name: str = Attribute(
        "What `algorithm` calls it. Case, - and _ do not count; none of our own names or short forms."
    )
    picker: str | type[Picker] = Attribute("The class, a Picker, or better its dotted name: package.module.Class.")


@implementer(IPlugin, IAlgorithm)
class Algorithm:
    """An algorithm under a name, for a file in twisted/plugins."""

    def __init__(self, name: str, picker: str | type[Picker]) -> None:
        self.name = name
        self.picker = picker

    def __repr__(self) -> str:
        return f"<Algorithm {self.name}: {self.picker}>"
