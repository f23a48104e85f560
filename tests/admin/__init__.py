"""Tests of lbsvc/admin."""
