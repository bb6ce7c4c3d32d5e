"""Encoders that map images and texts to vectors; registry.py lists them."""
