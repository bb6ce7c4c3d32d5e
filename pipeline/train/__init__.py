"""Training of a recommender: inputs, negative sampling, training loop, and retrieval from its vectors."""
