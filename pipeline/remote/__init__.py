"""Releases on their way: where they can be read (stores), brought here (fetch), sent there (push, bucket, hub)."""
