"""Days of traffic in seconds: the pools' own decisions on a simulated clock, with a referee who looks at each of them."""
