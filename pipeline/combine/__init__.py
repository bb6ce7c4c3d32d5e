"""Stage `combine`: feature sets that linear algebra makes of others, files of others, and controls. No torch."""
