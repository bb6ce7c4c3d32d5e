"""The nearest neighbours of every item, exact or approximate."""
