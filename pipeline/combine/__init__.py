"""Stage `combine`: feature sets derived from others, imported files, and controls. No torch."""
