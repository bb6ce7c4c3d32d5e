"""What a release has of semantic IDs: codes, codebooks, and what made them."""

from collections.abc import Iterator, Sequence

from pipeline.errors import UserError
from pipeline.layout import Layout, Piece
from pipeline.semantic_ids import files
from pipeline.semantic_ids.registry import METHODS


def codes(layout: Layout, names: Sequence[str], methods: Sequence[str] | None) -> Iterator[Piece]:
    """Yield the files of what was coded, by default of all methods that are no controls.

    UserError if a method that was asked for has coded none of the feature sets.
    """
    facts = (path for name in names for path in sorted(layout.semantic_ids(name, "*").parent.glob(f"*/{files.FACTS}")))
    coded = [path.parent for path in facts]
    made = sorted({folder.name for folder in coded})
    if absent := [method for method in methods or () if method not in made]:
        raise UserError(
            f"publish.semantic_ids: '{absent[0]}' has coded no released feature set of {layout.dataset}; "
            f"there are {', '.join(made) or f'none: {files.how_to_make(layout.dataset, names)}'}"
        )
    for folder in coded:
        if not METHODS[folder.name].control if methods is None else folder.name in methods:
            for name in (files.IDS, files.CODEBOOKS, files.FACTS):
                table = "semantic_ids" if name == files.IDS else ""
                yield Piece(f"semantic_ids/{folder.parent.name}/{folder.name}/{name}", folder / name, table)
