"""Interactions: filtering, numbering, splitting, and co-occurrence."""
