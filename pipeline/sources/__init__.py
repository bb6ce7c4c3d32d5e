"""Sources of datasets: one file a format; registry.py lists them."""
