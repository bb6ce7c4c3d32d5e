"""Releases: write, describe, verify, read, compare, move and export them; encode new items."""
