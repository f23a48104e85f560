"""Floor 5: the admin listener: /livez, /readyz, /metrics."""
