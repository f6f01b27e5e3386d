"""Signed model packages: made, read and verified."""
