"""Feature sets and releases side by side; and leaderboards."""
