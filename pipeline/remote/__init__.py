"""Transport of releases: addresses, reading (stores), downloading (fetch), uploading (push)."""
