"""The release folder: its content (manifest), its making (build, card) and its verification (verify)."""

from alignrec.pipeline.release.verify import verify

__all__ = ["verify"]
