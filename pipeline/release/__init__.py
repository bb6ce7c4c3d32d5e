"""The release folder: its content (manifest), its making (build, card) and its verification (verify)."""

from pipeline.release.verify import verify

__all__ = ["verify"]
