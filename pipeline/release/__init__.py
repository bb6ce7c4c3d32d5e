"""The release folder: what is in it (manifest), how it is made (build, card), how anyone checks it (verify)."""

from pipeline.release.verify import verify

__all__ = ["verify"]
