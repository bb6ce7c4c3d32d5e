"""What an encoder is made from, and so what its features depend on and a release tells of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import io
from pipeline.encode.base import Context, Progress
from pipeline.encode.origin import LOCAL
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS, MASKED, WHITENED, Encoders, defined, definition, kind, settings, spec
from pipeline.encode.registry import parts as parts_of
from pipeline.encode.whitened import WhitenedParams, source
from pipeline.layout import Layout


def context_of(layout: Layout, params: Encode, encoders: Encoders, name: str, kept: Path | None = None) -> Context:
    """Return what an encoder is made from; somebody's network is fetched, if need be, and looked at.

    Args:
        layout: of the dataset.
        params: section `encode`.
        encoders: section `encoders`.
        name: of the encoder.
        kept: folder of what is trained for it; by default that of its feature set.

    Raises:
        UserError: there is none such, or it cannot be read.
    """
    find, own = spec(encoders, name).origin, settings(encoders, name)
    of = [part for part in parts_of(encoders, name) if defined(encoders, part)]  # others are imported
    kept = kept or layout.features(name)
    parts = tuple(context_of(layout, params, encoders, part, None if part in params.encoders else kept) for part in of)
    origin = find(f"encoders.{name}", own) if find else None
    return Context(layout, params, encoders, name, origin, parts, kept=kept)


def fit(context: Context, progress: Progress) -> None:
    """Train what an encoder and its parts fit to the dataset, unless it is there; see `Spec.fit`."""
    for one in _trained(context):
        if (train := spec(one.encoders, one.name).fit) is not None and not one.fitted.is_file():
            train(one, settings(one.encoders, one.name), progress)


def weights(context: Context) -> list[dict[str, str]]:
    """Return name and sha256 of each file that `fit` wrote for a feature set, for its metadata."""
    return [{"name": one.fitted.name, "sha256": io.sha256(one.fitted)} for one in _trained(context)]


def settled(context: Context) -> Context:
    """Return the context with settings that leave nothing to the machine, the same for all nodes of a cluster."""
    encoders = {**context.encoders}
    for one in _all(context):
        entry = spec(context.encoders, one.name)
        if entry.settled is not None:
            owner, own = entry.variant_of or one.name, settings(context.encoders, one.name)
            encoders[owner] = {**encoders.get(owner, {}), **entry.settled(one, own).model_dump()}
    return _with(context, encoders)


def _with(context: Context, encoders: Encoders) -> Context:
    return replace(context, encoders=encoders, parts=tuple(_with(part, encoders) for part in context.parts))


def pinned(context: Context) -> Encoders:
    """Return the section `encoders` with each revision as it was found, so that all machines read the same."""
    revisions = {one.name: one.origin.revision for one in _all(context) if one.origin}
    commits = {name: revision for name, revision in revisions.items() if not revision.startswith(LOCAL)}
    return {**context.encoders, **{n: {**context.encoders.get(n, {}), "revision": c} for n, c in commits.items()}}


def inputs(context: Context) -> list[Path]:
    """Return the files that an encoder's features depend on."""
    own = settings(context.encoders, context.name)
    if isinstance(own, WhitenedParams):
        return io.shards(source(context, own), "features")
    if kind(context.encoders, context.name) == MASKED:
        return [path for part in context.parts for path in (*_part_inputs(context, part), *inputs(part))]
    if context.parts:
        return list(dict.fromkeys(path for part in context.parts for path in _part_inputs(context, part)))
    layout, entry = context.layout, spec(context.encoders, context.name)
    files = [layout.items, *ENCODERS.source_files(kind(context.encoders, context.name))]
    if "image" in modalities(context):
        files += io.shards(layout.images, "images")
    if entry.pretrained:
        files += [
            p
            for p in (layout.encoder_config, layout.encoder_weights, layout.tokenizer, layout.whitening)
            if p.is_file()
        ]
    return files


def facts(context: Context) -> dict[str, Any]:
    """Return what else they depend on, which their metadata records; the path of a folder is no part of it."""
    own = settings(context.encoders, context.name).model_dump()
    named_otherwise = kind(context.encoders, context.name) != context.name
    own = ({"kind": kind(context.encoders, context.name)} if named_otherwise else {}) | own | _network(context)
    return own | ({"parts": {part.name: facts(part) for part in context.parts}} if context.parts else {})


def about(context: Context, width: int | None = None) -> dict[str, Any]:
    """Return what a release tells of a feature set's encoder; empty for a kind that is ours.

    Args:
        context: what it is made from.
        width: F; None for a part of another.
    """
    if not context.origin and not context.parts:
        return {}
    which = {"kind": kind(context.encoders, context.name)} | ({} if width is None else {"dim": width})
    parts = [{"name": one.name, "kind": kind(one.encoders, one.name)} | about(one) for one in context.parts]
    return which | _network(context) | ({"parts": parts} if parts else {})


def modalities(context: Context) -> tuple[str, ...]:
    """Return the modalities that an encoder is shown."""
    return context.origin.reads if context.origin else spec(context.encoders, context.name).reads


def reads(context: Context) -> tuple[str, ...]:
    """Return the modalities that went into a feature set; of one made of others, into any of them.

    They are unknown of one that is made of an imported set: none.
    """
    which = kind(context.encoders, context.name)
    if not context.parts:
        return () if which == WHITENED else modalities(context)
    hidden = definition(context.encoders, context.name)["modality"] if which == MASKED else None
    seen = dict.fromkeys(modality for part in context.parts for modality in reads(part))
    return tuple(modality for modality in seen if modality != hidden)


def _trained(context: Context) -> list[Context]:
    """Return those that are fitted to the dataset, of a context and its parts; parts that have rows need not be."""
    if spec(context.encoders, context.name).fit is not None:
        return [context]
    own = [part for part in context.parts if part.name not in context.params.encoders]
    return [one for part in own for one in _trained(part)]


def _all(context: Context) -> list[Context]:
    """Return a context and those of all parts."""
    return [context, *(one for part in context.parts for one in _all(part))]


def _network(context: Context) -> dict[str, Any]:
    """Return what identifies somebody's network and how it is used; empty where there is none."""
    if (source := context.origin) is None:
        return {}
    which = {"model": source.model, "revision": source.revision, "library": source.library}
    return which | {"modalities": list(source.reads), "prompt": source.prompt}


def _part_inputs(context: Context, part: Context) -> list[Path]:
    """Return the files that a part of a concat depends on: its own features, if they are made anyway."""
    listed = part.name in context.params.encoders
    return io.shards(context.layout.features(part.name), "features") if listed else inputs(part)
