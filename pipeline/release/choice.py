"""Encoders to embed a table with: of a release, the parameters or a project, or combinations."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from alignrec.pipeline.beit3.params import BEIT3_SETS
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import ENCODERS, Encoders
from alignrec.pipeline.features import names
from alignrec.pipeline.features.params import Combine
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.encoder import MOST_AT_A_TIME, ReleasedEncoders
from alignrec.pipeline.release.loading import Project, refuse_absent
from alignrec.pipeline.release.recipe import Recipe, project_recipe, release_recipe
from alignrec.pipeline.runtime.layout import FEATURE_STAGES, Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import nearest

TABLE = "table"  # name of the table in paths and seeds
# kind:model, for kinds that load a third-party model
INLINE = re.compile(r"(?P<kind>[a-z][a-z0-9_-]*):(?P<model>.+)")


class Choice(NamedTuple):
    """An encoder of a release, the parameters or a project, or a combination of encoders."""

    name: str  # name of the feature set
    encode: Encode  # `encoders` are those that it needs
    images: Images  # how images are stored before they are encoded
    encoders: Encoders = {}  # section `encoders`, or more
    sets: Mapping[str, Mapping[str, Any]] = {}  # the combinations that it needs, parts last
    parts: Mapping[str, Sequence[str]] = {}  # combination -> the sets that it is derived from
    seed: int = 0  # of combinations
    project: Project | None = None  # contains the feature set and its encoder
    # encoded rows of earlier tables, and of the project if it reuses them
    cache: Path | None = None
    reads: tuple[str, ...] = ()  # modalities of the set of a release or project
    recipe: Recipe | None = None  # how that release or project makes its texts


def choose_released(
    release: Path, name: str, root: Path, engine: Literal["local", "ray"] = "local"
) -> Choice:
    """Find an encoder of a release."""
    shelf = ReleasedEncoders(release)
    facts = shelf.facts(name)
    refuse_absent(release, facts.packages)
    recipe = release_recipe(shelf.manifest)
    batch_size = min(facts.batch_size, MOST_AT_A_TIME)
    return Choice(
        name,
        Encode(engine=engine).model_copy(update={"encoders": [name], "batch_size": batch_size}),
        Images(size=facts.image_size, quality=facts.image_quality),
        {name: {"kind": "released", "model": str(release), "encoder": name}},
        cache=Layout(root, TABLE).rows,
        reads=tuple(facts.reads),
        recipe=recipe,
    )


def choose_encoder(
    params: Parameters | None, name: str, root: Path, engine: Literal["local", "ray"] = "local"
) -> Choice:
    """Find an encoder by name, kind, `kind:model`, feature set of a project, or combination."""
    encode = (params[Encode] if params else Encode()).model_copy(update={"engine": engine})
    combine = params[Combine] if params else Combine()
    images = params[Images] if params else Images()
    encoders: Encoders = params.encoders if params else {}

    inline = INLINE.fullmatch(name)
    if inline and inline["kind"] in ENCODERS and ENCODERS[inline["kind"]].origin:
        name = "inline"
        encoders = {name: {"kind": inline["kind"], "model": inline["model"]}}
    choice = Choice(name, encode, images, encoders, cache=Layout(root, TABLE).rows)
    if name in encoders or name in ENCODERS:
        return choice._replace(encode=encode.model_copy(update={"encoders": [name]}))

    dataset_of = _list_project_sets(root)
    if name in dataset_of:
        return _choose_project_set(choice, params, Layout(root, dataset_of[name]))
    if name not in combine.sets:
        valid = [*encoders, *ENCODERS, *combine.sets, *dataset_of]
        raise UserError(f"no encoder '{name}'{nearest(name, valid)}")
    return _choose_combination(choice, combine)


def _list_project_sets(root: Path) -> dict[str, str]:
    """Return feature set -> dataset."""
    datasets = {path.name for stage in FEATURE_STAGES for path in (root / stage).glob("*/")}
    dataset_of: dict[str, str] = {}
    for dataset in sorted(datasets):
        dataset_of |= dict.fromkeys(Layout(root, dataset).feature_sets(), dataset)
    return dataset_of


def _choose_project_set(choice: Choice, params: Parameters | None, layout: Layout) -> Choice:
    project = Project(layout)
    facts = project.facts(choice.name)
    sizes = {"size": facts.image_size, "quality": facts.image_quality}
    batch = {"encoders": [], "batch_size": facts.batch_size}
    return choice._replace(
        encode=choice.encode.model_copy(update=batch),
        images=choice.images.model_copy(update=sizes),
        project=project,
        reads=tuple(facts.reads),
        recipe=project_recipe(params, layout.dataset, layout.items) if params else None,
    )


def _choose_combination(choice: Choice, combine: Combine) -> Choice:
    encoders = choice.encode.encoders
    needed = _list_with_parts(choice.name, combine.sets, encoders)
    for name in needed:
        kind = names.kind_of(combine.sets, name)
        needs_interactions = kind is not None and kind.is_ceiling
        if name in BEIT3_SETS or needs_interactions:
            raise UserError(
                f"'{name}' needs more than a table; run `dvc repro`, or name a release by --release"
            )

    networks = [name for name in needed if name not in combine.sets]
    combined = [name for name in needed if name in combine.sets]
    return choice._replace(
        encode=choice.encode.model_copy(update={"encoders": networks}),
        sets={name: combine.sets[name] for name in combined},
        parts={name: _parts_of(name, combine.sets, encoders) for name in reversed(combined)},
        seed=combine.seed,
    )


def _list_with_parts(name: str, sets: names.Definitions, encoders: Sequence[str]) -> list[str]:
    """Return a set and, recursively, all its parts, which follow it."""
    listed = [name]
    for part in _parts_of(name, sets, encoders):
        listed += _list_with_parts(part, sets, encoders)
    return listed


def _parts_of(name: str, sets: names.Definitions, encoders: Sequence[str]) -> list[str]:
    """Return the sets that a combination is derived from; none come with a table."""
    if name not in sets:
        return []
    parts = names.settings_of(sets, name).parts()
    kind = names.kind_of(sets, name)
    if not parts and kind is not None and kind.takes_all:
        return list(encoders)
    return parts
