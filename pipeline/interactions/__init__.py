"""Filter, number and split interactions, and count co-occurrences."""
