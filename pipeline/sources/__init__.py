"""Where data comes from: one file a vintage."""
