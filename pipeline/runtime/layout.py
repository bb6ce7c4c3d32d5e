"""Paths of the files of all stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from alignrec.pipeline import io

WORK = ".work"  # folder of unfinished work
FURTHER_STEM = "further"  # stem of the files of items outside the k-core, see `items.all`
FEATURE_STAGES = ("encode", "beit3", "combine")  # stages that write feature sets


def list_image_files(folder: Path) -> list[Path]:
    """Return the files of images of all items, those outside the k-core last."""
    stems = ("images", FURTHER_STEM)
    return [path for stem in stems for path in sorted(folder.glob(f"{stem}-*.parquet"))]


@dataclass(frozen=True)
class EncoderFile:
    """Descriptor of a file of `EncoderFiles`."""

    name: str
    content: str

    def __get__(self, files: EncoderFiles, owner: type[EncoderFiles]) -> Path:
        return files.folder / self.name


@dataclass(frozen=True)
class EncoderFiles:
    """Files of an encoder that `pretrain` trains: network, tokenizer, whitening."""

    folder: Path
    weights = EncoderFile(
        "encoder.safetensors", "parameters of the network, under the published names"
    )
    config = EncoderFile("config.json", "shape of the network")
    tokenizer = EncoderFile("tokenizer.spm", "SentencePiece model; absent where no item has text")
    word_pieces = EncoderFile(
        "wordpieces.json", "MiniLM's word pieces in the order of `mini`, in place of a tokenizer"
    )
    whitening = EncoderFile(
        "whitening.safetensors", "mean and map that read CLS; absent for the raw vector"
    )
    start = EncoderFile("start.safetensors", "initial image embedding of `mini`; not released")
    official = EncoderFile(
        "official.safetensors",
        "weights of `pretrain.init` before training, without heads; not released",
    )

    def present(self) -> list[Path]:
        # files of a release
        files = (self.config, self.weights, self.tokenizer, self.word_pieces, self.whitening)
        return [path for path in files if path.is_file()]


@dataclass(frozen=True)
class StageFile:
    """Descriptor of a path in the folder of a stage."""

    stage: str
    name: str
    content: str
    unfinished: bool = False  # whether it is in the work folder, as it is not part of the output

    def __get__(self, layout: Layout, owner: type[Layout]) -> Path:
        return (
            layout.work(self.stage) if self.unfinished else layout.folder(self.stage)
        ) / self.name


@dataclass(frozen=True)
class OneOfFiles:
    """Descriptor of a method that returns the path of one of several files of a stage."""

    stage: str
    name: str  # file name with {} for the argument
    content: str

    def __get__(self, layout: Layout, owner: type[Layout]) -> Callable[[str], Path]:
        return lambda which: layout.folder(self.stage) / self.name.format(which)


@dataclass(frozen=True)
class Layout:
    """Paths of a dataset, <root>/<stage>/<dataset>/[<item>/].

    The running stage writes below `work`.
    """

    root: Path
    dataset: str
    running: tuple[str, str] = ("", "")
    drawn: int = 0  # number of the train/valid/test split

    def folder(self, stage: str, item: str = "") -> Path:
        if stage == self.running[0] and self.running[1] in ("", item):
            return self.work(stage, item)
        return self.out(stage, item)

    def work(self, stage: str, item: str = "") -> Path:
        """Folder of unfinished work, ignored by git and DVC; safe to delete."""
        return self.root / WORK / stage / self.dataset / item

    def out(self, stage: str, item: str = "") -> Path:
        return self.root / stage / self.dataset / item

    def run_record(self, stage: str, item: str = "") -> Path:
        """run.json: rows, drops, parameters, versions and the sha256 of each file."""
        return self.out(stage, item) / io.RECORD

    def cost(self, stage: str, item: str = "") -> Path:
        """cost.json: time and memory of the last run on this machine."""
        return self.work(stage, item) / io.COST

    # --- raw data and tables
    raw = StageFile("download", "", "raw files as downloaded")
    sources = StageFile("download", "sources.json", "list of raw files: name, url, bytes, sha256")
    users = StageFile("interactions", "users.parquet", "Table USERS.")
    item_ids = StageFile("interactions", "item_ids.parquet", "Table ITEM_IDS.")
    items = StageFile("items", "items.parquet", "Table ITEMS.")
    further_items = StageFile(
        "items", "further.parquet", "Table ITEMS of `items.all`; ids continue those of ITEM_IDS."
    )
    interaction_rejects = StageFile(
        "interactions", "rejects.parquet", "Table REJECTS of interactions read row by row."
    )
    rejects = StageFile(
        "items", "rejects.parquet", "Table REJECTS: metadata lines that could not be read."
    )
    images = StageFile("images", "", "Folder of images-*.parquet, table IMAGES.")

    @property
    def interactions(self) -> Path:
        """Table INTERACTIONS."""
        return self.folder("interactions") / (
            f"draw-{self.drawn}.parquet" if self.drawn else "interactions.parquet"
        )

    def draws(self) -> list[Layout]:
        """Layouts of all draws: same files, other train/valid/test splits."""
        others = len(list(self.folder("interactions").glob("draw-*.parquet")))
        return [replace(self, drawn=number) for number in range(1 + others)]

    # --- encoder and features
    visual_tokens = StageFile(
        "pretrain",
        "visual_tokens.safetensors",
        "centroids, float32 [C, W], or a VQ-KD tokenizer under published names",
    )  # absent without images, and with a published tokenizer
    encoder_checkpoint = StageFile(
        "pretrain", ".checkpoint.safetensors", "state of a killed pre-training", True
    )
    encoder_scratch = StageFile(
        "pretrain", ".scratch", "decoded images and ids during pre-training", True
    )

    @property
    def published(self) -> Path:
        """Folder of published weights and tokenizers, shared by all datasets; safe to delete."""
        return self.root / "published"

    @property
    def rows(self) -> Path:
        """Folder of cached rows, see pipeline/features/row_cache.py; safe to delete."""
        return self.root / WORK / "rows"

    @property
    def encoder(self) -> EncoderFiles:
        return EncoderFiles(self.folder("pretrain"))

    def features(self, name: str) -> Path:
        """Folder of a feature set: features-*.parquet, table features(F), set.json and encoder/."""
        below = [self.folder(stage) / name for stage in ("beit3", "combine")]
        return next((folder for folder in below if folder.is_dir()), self.folder("encode", name))

    def feature_sets(self) -> list[str]:
        files = (
            path
            for stage in FEATURE_STAGES
            for path in self.folder(stage).glob("*/features-00000.parquet")
        )
        return sorted(path.parent.name for path in files)

    edges = OneOfFiles("graph", "{}/edges.parquet", "Table EDGES of a feature set.")
    catalogue_edges = OneOfFiles(
        "graph", "{}/catalogue.parquet", "Table EDGES among all items; only with `items.all`."
    )
    codes = OneOfFiles(
        "semantic_ids", "{}/codes.parquet", "Table semantic_ids(L) of a feature set."
    )
    catalogue_codes = OneOfFiles(
        "semantic_ids",
        "{}/catalogue.parquet",
        "Table semantic_ids(L) of all items; only with `items.all`.",
    )
    codebooks = OneOfFiles(
        "semantic_ids", "{}/codebooks.safetensors", "centroids of its codes, float32 [L, K, F]"
    )

    # --- recommender
    model = StageFile("train", "model.safetensors", "parameters of the trained recommender")
    checkpoint = StageFile("train", ".checkpoint.safetensors", "state of a killed training", True)
    user_embeddings = StageFile("train", "user_embeddings.parquet", "Table user_embeddings(D).")
    item_embeddings = StageFile("train", "item_embeddings.parquet", "Table item_embeddings(D).")
    items_index = StageFile(
        "train", "items.faiss", "FAISS index of the item vectors, by inner product; row = item_id"
    )
    index_facts = StageFile("train", "index.json", "facts of the index, and its recall")

    def history(self, stage: str) -> Path:
        """Training curve of `pretrain` or `train`: a list of one object per epoch."""
        return self.folder(stage) / "history.json"

    # --- evidence
    code_quality = StageFile(
        "semantic_ids", "codes.json", "feature set -> figures of pipeline/features/semantic_ids.py"
    )
    probes = StageFile("probe", "probes.json", "intermediate evaluation of every feature set")
    results = StageFile("benchmark", "results.parquet", "Table RESULTS.")
    slices = StageFile("benchmark", "slices.parquet", "Table SLICES.")
    tests = StageFile("benchmark", "tests.parquet", "Table TESTS.")
    protocol = StageFile(
        "benchmark", "protocol.json", "the protocol that the fingerprint of a figure identifies"
    )
    metrics = StageFile(
        "benchmark", "metrics.json", "mean and sd of the headline metrics of every run"
    )
    tuning = StageFile(
        "benchmark", "tuning.parquet", "Table TUNING; absent where the settings are used as given."
    )
    runs = StageFile(
        "benchmark", "runs.json", "the cell of each run, see pipeline/evaluation/benchmark/cell.py"
    )
    report = StageFile("report", "", "index.html and report.md")
    release = StageFile("publish", "release", "the release folder")

    def cells(self, stage: str) -> Path:
        """Folder of the records and rankings of trained models, see evaluation/benchmark."""
        return self.folder(stage) / "cells"

    study = OneOfFiles("study", "{}.parquet", "Table STUDY of a part of the study.")
    study_plot = OneOfFiles("study", "{}.json", "rows of a part for `dvc plots`")
    # shown by DVC and tracked in git
    figures = OneOfFiles("report", "figures/{}.json", "`metrics`, or plot rows of a stage or part")
