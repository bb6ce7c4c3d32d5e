"""Plans of the other commands: which cells a benchmark, a comparison and a league need."""
