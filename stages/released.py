"""What users do with a release by itself: encode new items, attest it, and read it in place of a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.terminal import interruptible, say, show

if TYPE_CHECKING:
    from pipeline.layout import Layout
    from pipeline.params import Params


@contextmanager
def laid_out(what: str, root: Path, *needs: str) -> Iterator[Layout]:
    """Yield the outputs of a dataset, or those that a release stands for; a release is verified first.

    Args:
        what: a dataset, or a release folder.
        root: folder of the stages' outputs, for a dataset.
        needs: what a release must have: interactions, embeddings.

    Raises:
        UserError: the release is damaged, or lacks something.
    """
    from pipeline.layout import Layout

    if not is_release(what):
        yield Layout(root, what)
        return
    from pipeline.release.read import Release, unpacked

    with unpacked(Release(Path(what)).verified(), needs) as layout:
        yield layout


def settings(what: str, params: Path) -> Params:
    """Return the parameters of a dataset; a release brings its own where there is no parameter file.

    Raises:
        UserError: no such file or dataset, or a fault in them.
    """
    from pipeline.params import read

    if is_release(what):
        from pipeline.release.read import Release, parameters

        return parameters(Release(Path(what)), params)
    read_params = read(params)
    read_params.source(what)
    return read_params


def is_release(what: str) -> bool:
    """Return whether an argument names a release folder rather than a dataset; UserError for any other path."""
    from pipeline.errors import UserError

    if (Path(what) / "manifest.json").exists():
        return True
    if Path(what).name != what:  # a dataset has a plain name
        raise UserError(f"{what}: no release folder: there is no manifest.json in it")
    return False


def probe(what: str, params: Path, root: Path, to: Path | None) -> None:
    """Judge the feature sets of a release as the stage `probe` judges a dataset's, and print the figures.

    Args:
        what: a release folder.
        params: parameter file; a release does without one.
        root: folder of the stages' outputs; not read.
        to: file to write the figures to, JSON.

    Raises:
        UserError: the release is damaged, or has no interactions.
    """
    with laid_out(what, root, "interactions") as layout:
        from pipeline import io
        from pipeline.probe.registry import PROBES
        from pipeline.report import terminal
        from pipeline.run import running  # loads every registry, which an error above need not wait for
        from stages.probe import main

        with running("probe", layout.dataset, settings(what, params), layout.root) as run:
            main(run)
        figures = io.read_json(layout.probes)
    show(terminal.probes(figures, PROBES))
    if to is not None:
        io.write_json(to, figures)


def embed(
    release: Annotated[Path, typer.Argument(help="a release folder")],
    items: Annotated[Path, typer.Argument(help="JSON lines or CSV: an identifier, and text or title, brand, ...")],
    encoder: Annotated[str, typer.Option(help="feature set whose encoder to use")],
    to: Annotated[Path, typer.Option("--to", help="Parquet file to make; an interrupted run resumes")],
    images: Annotated[Path | None, typer.Option(help="folder of image files: `image` of the item, or <id>.jpg")] = None,
) -> None:
    """new items in the space of a released feature set, by its own encoder."""
    from pipeline.release import verify as check

    for _ in check(release):
        pass
    from tqdm import tqdm

    from pipeline.release import embed as embedding  # loads torch, which a damaged release need not wait for

    kept = f"items encoded so far are kept beside {to}"
    with interruptible(kept), tqdm(desc="embed", unit="item", disable=None) as bar:
        summary = embedding.embed(release, encoder, items, images, to, bar.update)
    say(f"embedded: {to}: {summary.items:,} items, {summary.images:,} with image, {summary.texts:,} with text")
    if summary.rejects:
        say(f"not used: {summary.rejects}: {summary.rejected:,} lines, and why")


def attest(
    release: Annotated[Path, typer.Argument(help="a release folder")],
    data: Annotated[str, typer.Option(help="a dataset, or a file of items as for `embed`")],
    images: Annotated[Path | None, typer.Option(help="folder of image files, beside a file of items")] = None,
    sample: Annotated[int, typer.Option(min=1, help="rows to recompute")] = 200,
    encoder: Annotated[list[str] | None, typer.Option(help="a feature set; may be given again; all by default")] = None,
    json_to: Annotated[Path | None, typer.Option("--json", help="also write the result here")] = None,
    root: Annotated[Path, typer.Option("--root", help="folder that holds every stage's outputs")] = Path("outputs"),
) -> None:
    """recompute rows of a release from their inputs: do text, image and vector agree? Exit code 1 if not."""
    from pipeline import io
    from pipeline.release import verify as check

    for _ in check(release):
        pass
    from pipeline.release import attest as attesting  # loads torch, which a damaged release need not wait for

    outcome = attesting.attest(release, attesting.inputs(data, images, root), sample, encoder or [])
    for line in attesting.lines(outcome, release):
        say(line)
    if json_to:
        io.write_json(json_to, attesting.described(outcome))
    if not outcome.agrees:
        raise typer.Exit(1)
