"""Infrastructure to run stages: files and records, seeds, resuming, progress, and code fingerprints."""
