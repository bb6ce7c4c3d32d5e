"""Feature sets: the shard loop, combinations, item graphs and semantic IDs."""
