"""Third-party feature files: a reader per format, and rows matched with the items of a dataset."""
