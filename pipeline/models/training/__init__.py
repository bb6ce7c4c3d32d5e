"""Train a recommender: inputs, negative sampling, training loop, and retrieval with its vectors."""
