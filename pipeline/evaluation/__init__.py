"""Rankings, metrics, evaluation protocols and significance tests."""
