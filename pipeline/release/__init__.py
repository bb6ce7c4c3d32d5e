"""Release folders: contents (manifest), writing (build, card) and verification (verify)."""

from alignrec.pipeline.release.verify import verify

__all__ = ["verify"]
