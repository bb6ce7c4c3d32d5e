"""What a release has of feature sets: their vectors, and the candidates of those that valid chose."""

from collections.abc import Iterator, Sequence

from pipeline import io
from pipeline.layout import Layout, Piece


def pieces(layout: Layout, names: Sequence[str]) -> Iterator[Piece]:
    for name in names:
        for path in io.shards(layout.features(name), "features"):
            yield Piece(f"features/{name}/{path.name}", path, "features")
    for name in names:
        if (path := layout.tried(name)).exists():
            yield Piece(f"tried/{name}.parquet", path, "tried")
