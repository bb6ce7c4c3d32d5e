"""Rankings, metrics, the protocol that makes figures comparable, and statistics."""
