"""What runs a stage: its files and record, seeds, resuming, progress, and the fingerprint of its code."""
