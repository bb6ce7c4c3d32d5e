"""Part `generative` of section `study` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Name, Positive, Rate, Section

Reads = Literal["ids", "ids + features", "features"]


class Generative(Section):
    """Codes judged by use: a generative recommender on semantic IDs beside networks on items, by leave-one-out.

    All contenders have one size, one budget and one way to stop.
    """

    features: list[Name] = []
    """feature sets whose codes are used, of `semantic_ids.features`; empty: no training"""
    methods: list[Name] = []
    """of `semantic_ids.methods`, controls included; empty: all that are there"""
    networks: list[Literal["sasrec", "bsarec"]] = ["sasrec"]
    """that stand beside the codes"""
    reads: list[Reads] = ["ids"]
    """what these read of an item: an id of its own, the vector of one of `features`, the sum of both; a row each"""
    seeds: Positive = 5
    """trainings of each contender"""
    rates: Annotated[list[Rate], Field(min_length=1)] = [0.003]
    """learning rates that each contender tries on valid, with its first seed; the best NDCG@20 is used"""
    length: Positive = 20
    """items of a history at most, the latest"""
    dim: Positive = 64
    """width of the networks"""
    layers: Positive = 2
    """of SASRec; of encoder and decoder each"""
    heads: Positive = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    batch_size: Positive = 128
    """windows of users' items a step"""
    epochs: Positive = 40
    """at most"""
    patience: Positive = 4
    """epochs without a better valid NDCG@20 after which a training ends"""
    ks: Annotated[list[Positive], Field(min_length=1)] = [5, 10, 20]
    """cutoffs"""
    beams: Positive = 30
    """prefixes that the search keeps at each level, at least the largest cutoff"""

    @model_validator(mode="after")
    def _divided(self) -> Generative:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be a multiple of heads, {self.heads}")
        if self.beams < max(self.ks):
            raise ValueError(f"{self.beams} beams cannot rank {max(self.ks)} items; give more beams or smaller ks")
        return self
