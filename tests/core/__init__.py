"""Tests of the decisions and books in lbsvc.core."""
