"""Several processes that carry the traffic, and one that starts, tells and watches them: `workers: N`."""
