"""Tests of lbsvc.net."""
