"""Semantic IDs: an item's vector as a few discrete codes, with the codebooks that made them."""
