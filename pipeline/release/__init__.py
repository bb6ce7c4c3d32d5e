"""Releases: write, describe, verify, read, compare, move and export them, and encode new items with them."""
