"""Read third-party feature files, with a reader per format, and match their rows with items."""
