"""Tests of lbsvc.config."""
