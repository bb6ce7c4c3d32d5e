"""Semantic IDs: items as short sequences of discrete codes, from coarse to fine."""
