"""Stage `combine`: derived feature sets, imported files and controls, without torch."""
