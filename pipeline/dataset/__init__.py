"""Interactions and items: filter, number, split, clean, and count co-occurrences."""
