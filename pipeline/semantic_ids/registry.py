"""The methods that code vectors, one file each with its parameters; a new one is a file and an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.semantic_ids.base import Method

METHODS: Registry[type[Method]] = Registry(
    "semantic_ids",
    {
        "residual-kmeans": "pipeline.semantic_ids.residual_kmeans:ResidualKMeans",
        "rqvae": "pipeline.semantic_ids.rqvae:RQVAE",
        "random": "pipeline.semantic_ids.controls:Random",
        "shuffled": "pipeline.semantic_ids.controls:Shuffled",
        "categories": "pipeline.semantic_ids.controls:Categories",
    },
)
