"""Comparisons of feature sets and of releases, and leaderboards."""
