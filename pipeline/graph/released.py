"""Item graphs of a release."""

from collections.abc import Iterator, Sequence

from pipeline.layout import Layout, Piece


def pieces(layout: Layout, names: Sequence[str]) -> Iterator[Piece]:
    for name in names:
        if (path := layout.edges(name)).exists():
            yield Piece(f"graph/{name}/{path.name}", path, "edges")
