"""Find the nearest neighbours of items, exactly or approximately."""
