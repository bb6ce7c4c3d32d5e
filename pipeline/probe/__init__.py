"""Feature sets judged without a recommender, and by masking a modality."""
