"""Transport of releases: reading (stores), downloading (fetch), uploading (push, s3, hub)."""
