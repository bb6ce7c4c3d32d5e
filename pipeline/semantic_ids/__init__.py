"""Semantic IDs: an item's vector as a few discrete codes, from coarse to fine."""
