"""Where data comes from: one file a vintage; pipeline/readers.py says which reads what."""
