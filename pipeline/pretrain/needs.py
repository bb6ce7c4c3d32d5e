"""What a pre-trained encoder depends on: items, images, parameters, teachers. Imports no slow library."""

from pathlib import Path
from typing import Any

from pipeline import io
from pipeline.config.parameters import Parameters
from pipeline.encode.params import Encode
from pipeline.features import needs, registry
from pipeline.http.fetch import local
from pipeline.layout import Layout
from pipeline.pretrain.params import Pretrain
from pipeline.stage import Needs


def find(params: Parameters, layout: Layout) -> Needs:
    """Return what an encoder that these parameters pre-train depends on."""
    own, encoders, names = params[Pretrain], params.encoders, taught_by(params)
    files = [layout.items, *io.shards(layout.images, "images"), *_published(own)]
    files += needs.files(encoders, names)
    facts: list[Any] = [own.facts()]
    if own.words == "minilm":
        facts.append(needs.libraries(encoders, ["minilm"]))
    if names:
        facts += [params[Encode].batch_size, needs.settings(encoders, names), needs.libraries(encoders, names)]
    kinds = needs.kinds(encoders, names)
    files += [path for home, kind in kinds for path in home.source_files(kind)]
    return Needs(files, facts, ["pipeline.pretrain.train", *(home.module(kind) for home, kind in kinds)])


def taught_by(params: Parameters) -> list[str]:
    """Return the encoders that pre-training learns from, parts of others included."""
    own = params[Pretrain]
    return registry.whole(params.encoders, own.distill_from if own.distill else ())


def _published(params: Pretrain) -> list[Path]:
    """Return the published files that pre-training starts from, those of this machine; others have a sha256."""
    named = [local(address) for address in (params.init, params.tokenizer, params.vqkd) if address]
    return [path for path in named if path is not None and path.is_file()]
