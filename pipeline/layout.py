"""The paths of all files of all stages; no other module spells a file name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import io


@dataclass(frozen=True)
class EncoderFiles:
    """Paths of what `pretrain` writes and a release carries: network, tokenizer, whitening."""

    folder: Path

    @property
    def weights(self) -> Path:
        """The network's parameters, under the published names."""
        return self.folder / "encoder.safetensors"

    @property
    def config(self) -> Path:
        """The network's shape."""
        return self.folder / "config.json"

    @property
    def tokenizer(self) -> Path:
        """SentencePiece model; absent where no item has text."""
        return self.folder / "tokenizer.spm"

    @property
    def word_pieces(self) -> Path:
        """MiniLM's word pieces in the order of `mini`, JSON; other sizes have a SentencePiece model."""
        return self.folder / "wordpieces.json"

    @property
    def start(self) -> Path:
        """How the image's embedding of `mini` started; a release does without."""
        return self.folder / "start.safetensors"

    @property
    def images(self) -> Path:
        """What `mini` reads of each image of the catalogue, float32 [I, W]; a release does without."""
        return self.folder / "images.npy"

    @property
    def image_hashes(self) -> Path:
        """Hash of each image of the catalogue, bytes [I], in the order of `images`; a release does without."""
        return self.folder / "image_hashes.npy"

    @property
    def whitening(self) -> Path:
        """Mean and map that read CLS: by its teachers, or whitened; absent if it is taken as it is."""
        return self.folder / "whitening.safetensors"

    @property
    def official(self) -> Path:
        """The weights of `pretrain.init` before training, without heads; absent without `init`, and from releases."""
        return self.folder / "official.safetensors"

    def present(self) -> list[Path]:
        """Return those that exist of what a release carries."""
        files = (self.config, self.weights, self.tokenizer, self.word_pieces, self.whitening)
        return [path for path in files if path.is_file()]


class Piece(NamedTuple):
    """A file that a package puts into a release."""

    to: str
    """path in the release"""
    source: Path | bytes | Mapping[str, Any]
    """the file, its bytes, or what is written as JSON"""
    table: str = ""
    """kind of table, a key of TABLES in release/manifest.py; empty for none"""


@dataclass(frozen=True)
class Layout:
    """Paths of one dataset under `root` (usually `outputs`): <root>/<stage>/<dataset>/..."""

    root: Path
    dataset: str

    def folder(self, stage: str) -> Path:
        """Return the folder that `stage` owns."""
        return self.root / stage / self.dataset

    def run_record(self, stage: str) -> Path:
        """Return the stage's run.json: rows, drops, parameters, versions, and the sha256 of each of its files."""
        return self.folder(stage) / io.RECORD

    def cost(self, stage: str) -> Path:
        """Return the stage's cost.json: what its last run took on this machine. DVC ignores it."""
        return self.folder(stage) / io.COST

    def outputs(self, stage: str) -> list[Path]:
        """Return the files that a stage has written, sorted; without run records, signatures and scratch files."""
        return io.files_below(self.folder(stage))

    # --- raw data
    @property
    def raw(self) -> Path:
        """Folder of the raw files as downloaded."""
        return self.folder("download")

    @property
    def sources(self) -> Path:
        """What was downloaded: name, url, bytes, sha256."""
        return self.raw / "sources.json"

    # --- tables
    @property
    def interactions(self) -> Path:
        """Table INTERACTIONS."""
        return self.folder("interactions") / "interactions.parquet"

    def draw(self, number: int) -> Layout:
        """Return the paths with the split of another draw in place of the first; all else is the dataset's."""
        path = self.folder("interactions") / f"draw-{number}.parquet"
        return OtherSplit(self.root, self.dataset, path) if number else self

    def draws(self) -> list[Layout]:
        """Return the paths of each draw of the split, the first one's being these."""
        return [self.draw(number) for number in range(1 + len(list(self.interactions.parent.glob("draw-*.parquet"))))]

    @property
    def users(self) -> Path:
        """Table USERS."""
        return self.folder("interactions") / "users.parquet"

    @property
    def item_ids(self) -> Path:
        """Table ITEM_IDS."""
        return self.folder("interactions") / "item_ids.parquet"

    @property
    def items(self) -> Path:
        """Table ITEMS."""
        return self.folder("items") / "items.parquet"

    @property
    def interaction_rejects(self) -> Path:
        """Table REJECTS of interactions; there only if a file had to be read row by row."""
        return self.folder("interactions") / "rejects.parquet"

    @property
    def rejects(self) -> Path:
        """Table REJECTS: metadata lines that could not be read."""
        return self.folder("items") / "rejects.parquet"

    @property
    def images(self) -> Path:
        """Folder of images-*.parquet, table IMAGES."""
        return self.folder("images")

    # --- encoder and features
    @property
    def published(self) -> Path:
        """Folder of published weights and tokenizers, shared by all datasets; safe to delete."""
        return self.root / "published"

    @property
    def encoder(self) -> EncoderFiles:
        """What `pretrain` writes and a release carries."""
        return EncoderFiles(self.folder("pretrain"))

    @property
    def visual_tokens(self) -> Path:
        """What was learned of visual tokens: centroids, float32 [C, W], or a VQ-KD tokenizer under published names.

        Absent where no item has an image, and with a published tokenizer.
        """
        return self.encoder.folder / "visual_tokens.safetensors"

    @property
    def encoder_checkpoint(self) -> Path:
        """Where a killed pre-training resumes; gone when it is done."""
        return self.encoder.folder / "checkpoint.safetensors"

    @property
    def encoder_scratch(self) -> Path:
        """Decoded images and ids during pre-training; gone when it is done."""
        return self.encoder.folder / ".scratch"

    def teacher_features(self, name: str) -> Path:
        """Return the file of a frozen encoder's vectors, which pre-training reads; safe to delete."""
        return self.folder("teachers") / name / "features.npy"

    @property
    def teacher_target(self) -> Path:
        """What frozen encoders teach together; gone when pre-training is done."""
        return self.encoder_scratch / "target.npy"

    def features(self, name: str) -> Path:
        """Folder of features-*.parquet of one feature set, table features(F)."""
        return self.folder("encode") / name

    def feature_sets(self) -> list[str]:
        """Return the names of the feature sets that encode has written, sorted."""
        folders = self.folder("encode").glob("*/")
        return sorted(f.name for f in folders if any(f.glob("features-*.parquet")))

    def tried(self, name: str) -> Path:
        """Table TRIED of a feature set of kind `chosen`; absent for others."""
        return self.features(name) / "tried.parquet"

    def edges(self, name: str) -> Path:
        """Table EDGES of one feature set."""
        return self.folder("graph") / name / "edges.parquet"

    def semantic_ids(self, features: str, method: str) -> Path:
        """Return the folder of a feature set's semantic IDs by one method, see pipeline/semantic_ids/files.py."""
        return self.folder("semantic_ids") / features / method

    # --- recommender
    @property
    def model(self) -> Path:
        """The trained recommender's parameters."""
        return self.folder("train") / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where a killed training resumes; gone when it is done."""
        return self.folder("train") / "checkpoint.safetensors"

    @property
    def user_embeddings(self) -> Path:
        """Table user_embeddings(D)."""
        return self.folder("train") / "user_embeddings.parquet"

    @property
    def item_embeddings(self) -> Path:
        """Table item_embeddings(D)."""
        return self.folder("train") / "item_embeddings.parquet"

    def history(self, stage: str) -> Path:
        """Return the training curve of `pretrain` or `train`: a list of one object an epoch."""
        return self.folder(stage) / "history.json"

    # --- evidence
    @property
    def probes(self) -> Path:
        """Intermediate evaluations of every feature set."""
        return self.folder("probe") / "probes.json"

    @property
    def results(self) -> Path:
        """Table RESULTS."""
        return self.folder("benchmark") / "results.parquet"

    @property
    def slices(self) -> Path:
        """Table SLICES."""
        return self.folder("benchmark") / "slices.parquet"

    @property
    def tests(self) -> Path:
        """Table TESTS."""
        return self.folder("benchmark") / "tests.parquet"

    @property
    def protocol(self) -> Path:
        """The protocol that the fingerprint beside every figure identifies, JSON."""
        return self.folder("benchmark") / "protocol.json"

    @property
    def metrics(self) -> Path:
        """Mean and sd of the headline metrics of every run."""
        return self.folder("benchmark") / "metrics.json"

    @property
    def tuning(self) -> Path:
        """Table TUNING; absent where the settings are used as given."""
        return self.folder("benchmark") / "tuning.parquet"

    @property
    def league(self) -> Path:
        """Table LEAGUE; absent of one split."""
        return self.folder("benchmark") / "league.parquet"

    @property
    def league_facts(self) -> Path:
        """What follows from the league, JSON; see pipeline/experiment/tables/league.py."""
        return self.folder("benchmark") / "league.json"

    @property
    def runs(self) -> Path:
        """In which cell each run of the benchmark lies, JSON; see pipeline/benchmark/runs.py."""
        return self.folder("benchmark") / "runs.json"

    def cells(self, stage: str) -> Path:
        """Return the folder of a stage's trainings, a record and rankings each; see pipeline/experiment/store.py."""
        return self.folder(stage) / "cells"

    # --- the study: what the article measures beyond the benchmark
    def study(self, part: str) -> Path:
        """Return the table of a part, see schemas.STUDY."""
        return self.folder("study") / f"{part}.parquet"

    def study_plot(self, part: str) -> Path:
        """Return the rows that `dvc plots` draws of a part, JSON."""
        return self.folder("study") / f"{part}.json"

    @property
    def report(self) -> Path:
        """Folder of index.html and report.md."""
        return self.folder("report")

    def figures(self, part: str) -> Path:
        """Return what DVC shows and git keeps: `metrics`, and the rows of the plots by their stage or part, JSON."""
        return self.folder("figures") / f"{part}.json"

    @property
    def release(self) -> Path:
        """The release folder."""
        return self.folder("publish") / "release"


@dataclass(frozen=True)
class OtherSplit(Layout):
    """The paths of a dataset with another split; all other files are the dataset's."""

    split: Path

    @property
    def interactions(self) -> Path:
        """Table INTERACTIONS of the split."""
        return self.split
