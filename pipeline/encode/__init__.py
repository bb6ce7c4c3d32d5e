"""Content encoders: images and texts -> vectors; registry.py lists them."""
