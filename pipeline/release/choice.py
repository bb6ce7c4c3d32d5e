"""Encoders to embed a table with: of a release, of the parameters, or of a project's sets."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import (
    ENCODERS,
    Encoders,
    Network,
    find_network,
    kind_of,
    settings_facts,
)
from alignrec.pipeline.features.encode import describe_set, list_modules
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.encoder import ReleasedEncoders
from alignrec.pipeline.release.item_table import Recipe, project_recipe, release_recipe
from alignrec.pipeline.release.loading import (
    Loaded,
    Project,
    facts_here,
    load_encoder,
    refuse_absent,
)
from alignrec.pipeline.runtime.layout import FEATURE_STAGES, Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import nearest

# kind:model, for kinds that load a third-party model
INLINE = re.compile(r"(?P<kind>[a-z][a-z0-9_-]*):(?P<model>.+)")


class Choice(NamedTuple):
    """An encoder of a release, the parameters or a project."""

    name: str  # name of the feature set
    made: dict[str, Any]  # what its vectors depend on, but for `files` and `modules`
    load: Callable[[], Loaded]
    images: Images  # how images are stored before they are encoded
    reads: Sequence[str]  # modalities
    encode: Encode = Encode()
    recipe: Recipe | None = None  # how the release or project makes its texts
    project: Layout | None = None  # of its dataset
    files: Sequence[Path] = ()
    modules: Sequence[str] = ()
    name_errors: Callable[[], AbstractContextManager[None]] = nullcontext


def choose_released(release: Path, name: str) -> Choice:
    """Find an encoder of a release."""
    shelf = ReleasedEncoders(release)
    facts = shelf.facts(name)
    refuse_absent(release, facts.packages)
    return Choice(
        name,
        facts.model_dump(),
        partial(shelf.load, name),
        Images(size=facts.image_size, quality=facts.image_quality),
        facts.reads,
        recipe=release_recipe(shelf.manifest),
    )


def choose_encoder(params: Parameters | None, name: str, root: Path) -> Choice:
    """Find an encoder by name, kind, `kind:model`, or feature set of a project."""
    encoders: Encoders = params.encoders if params else {}
    inline = INLINE.fullmatch(name)
    if inline and inline["kind"] in ENCODERS and ENCODERS[inline["kind"]].origin:
        name = "inline"
        encoders = {name: {"kind": inline["kind"], "model": inline["model"]}}
    is_encoder = name in encoders or name in ENCODERS
    if is_encoder and not ENCODERS[kind_of(encoders, name)].fit:
        return _choose_network(params, find_network(encoders, name, root))

    dataset_of = _list_project_sets(root)
    if name in dataset_of:
        return _choose_project_set(params, name, Layout(root, dataset_of[name]))
    if is_encoder:
        raise UserError(
            f"'{name}' is fitted to a catalogue; name a release that has it by --release"
        )
    raise UserError(f"no encoder '{name}'{nearest(name, [*encoders, *ENCODERS, *dataset_of])}")


def _choose_network(params: Parameters | None, network: Network) -> Choice:
    encode = params[Encode] if params else Encode()
    images = params[Images] if params else Images()
    stored = {"image_size": images.size, "image_quality": images.quality}

    def load() -> Loaded:
        encoder = network.load()
        return Loaded(describe_set(network, encode, stored, encoder), encoder)

    files = list(ENCODERS.source_files(network.kind))
    return Choice(
        network.name,
        settings_facts(network, encode),
        load,
        images,
        network.reads,
        encode,
        files=[*files, *network.files()] if network.origin else files,
        modules=list_modules(network),
        name_errors=network.name_errors,
    )


def _list_project_sets(root: Path) -> dict[str, str]:
    """Return feature set -> dataset."""
    datasets = {path.name for stage in FEATURE_STAGES for path in (root / stage).glob("*/")}
    dataset_of: dict[str, str] = {}
    for dataset in sorted(datasets):
        dataset_of |= dict.fromkeys(Layout(root, dataset).feature_sets(), dataset)
    return dataset_of


def _choose_project_set(params: Parameters | None, name: str, layout: Layout) -> Choice:
    project = Project(layout)
    facts = facts_here(project, name)
    images = params[Images] if params else Images()
    sizes = {"size": facts.image_size, "quality": facts.image_quality}
    return Choice(
        name,
        facts.model_dump(),
        lambda: Loaded(facts, load_encoder(project, name).encoder),
        images.model_copy(update=sizes),
        facts.reads,
        params[Encode] if params else Encode(),
        project_recipe(params, layout.dataset, layout.items) if params else None,
        layout,
    )
