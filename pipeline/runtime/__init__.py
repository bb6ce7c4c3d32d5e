"""What runs stages: parameters, records, paths, seeds, workers, progress, code fingerprints."""
