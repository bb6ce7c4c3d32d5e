"""Feature sets, semantic IDs and releases side by side; and leaderboards."""
