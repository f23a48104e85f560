"""Tests of lbsvc/observe."""
