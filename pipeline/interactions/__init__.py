"""Ratings: filtered, numbered, split; and which items occur together."""
