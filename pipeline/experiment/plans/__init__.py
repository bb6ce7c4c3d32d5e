"""Plans of the other commands: which cells a benchmark, a comparison, a league and a sweep need."""
