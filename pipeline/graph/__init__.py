"""Nearest neighbours of items, exact or approximate."""
