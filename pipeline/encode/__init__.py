"""Content encoders: images and texts -> vectors; `registry` lists them."""
