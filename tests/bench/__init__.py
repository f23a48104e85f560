"""Measurements: run by hand, never by trial."""
