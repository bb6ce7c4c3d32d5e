"""Training of one recommender: inputs, negative samples, loop; retrieval from what was trained."""
