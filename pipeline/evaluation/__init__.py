"""Rankings, metrics, the protocol that makes figures comparable, and the statistics over them."""
