"""Compare feature sets and releases, and make leaderboards."""
