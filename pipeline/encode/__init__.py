"""Networks that turn pictures and texts into vectors; `registry` lists those that make feature sets."""
