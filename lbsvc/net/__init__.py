"""Floor 3: bytes: the reactor, listeners, dialling, the relay (the layer 4 road), probes, names, drain."""
