"""Tests of what several processes that carry traffic together agree on."""
