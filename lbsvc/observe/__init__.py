"""Floor 5: what can be seen of the service: metrics, access log, event log."""
