"""Floor 4: layer 7: the codec, the server and client roles, and the exchange, which is the layer 7 road."""
