"""Tests of lbctl: its commands, and what helps beside it."""
