"""Floor 1: decisions and books, without sockets, clocks or randomness of their own."""
