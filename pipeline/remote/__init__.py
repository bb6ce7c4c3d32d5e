"""Transport of releases: addresses and reading (stores), download (fetch), upload (push)."""
