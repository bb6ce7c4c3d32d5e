"""Anybody's feature files: a reader per format, and their rows matched with the items of a dataset."""
