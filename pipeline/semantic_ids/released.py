"""What a release has of semantic IDs: codes, codebooks, and what made them."""

from collections.abc import Iterator, Sequence

from pipeline.errors import UserError
from pipeline.layout import Layout, Piece
from pipeline.semantic_ids import files
from pipeline.semantic_ids.registry import METHODS


def pieces(layout: Layout, names: Sequence[str], methods: Sequence[str] | None) -> Iterator[Piece]:
    """Yield the files of the given methods, by default of all that are no controls; UserError if one is absent."""
    folders = [
        path.parent for name in names for path in sorted(layout.semantic_ids(name, "*").parent.glob(f"*/{files.FACTS}"))
    ]
    there = sorted({folder.name for folder in folders})
    if absent := [method for method in methods or () if method not in there]:
        raise UserError(
            f"publish.semantic_ids: '{absent[0]}' has coded no released feature set of {layout.dataset}; "
            f"there are {', '.join(there) or f'none: {files.how_to_make(layout.dataset, names)}'}"
        )
    for folder in folders:
        if not METHODS[folder.name].control if methods is None else folder.name in methods:
            for name in files.NAMES:
                table = "semantic_ids" if name == files.IDS else ""
                yield Piece(f"semantic_ids/{folder.parent.name}/{folder.name}/{name}", folder / name, table)
