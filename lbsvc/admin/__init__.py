"""Floor 5: the admin listener: /livez, /readyz, /metrics, the API and the dashboard."""
