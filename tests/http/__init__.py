"""Tests of the HTTP floor: codecs, messages, exchanges."""
