"""Chaos: the real service, backends that break in every way, clients that keep books, and what must hold afterwards."""
