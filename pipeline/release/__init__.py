"""Release folders: contents (manifest), writing (build, card) and verification (read)."""
