"""Third-party feature files: a reader per format, and matching of rows with items."""
