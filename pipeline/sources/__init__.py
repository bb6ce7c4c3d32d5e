"""Where data comes from: one file a vintage; pipeline/sources/registry.py says which reads what."""
