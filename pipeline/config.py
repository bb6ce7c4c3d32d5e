"""params.yaml as closed, typed, frozen classes: one a stage, in data-flow order.

An unknown key, a wrong type or a value out of range is one line that names section, key and the nearest valid key.
"""

from __future__ import annotations

import difflib
import math
import types
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_serializer, model_validator

from pipeline.catalogue import ADDRESSES, addresses
from pipeline.errors import UserError

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Mirrors = Annotated[
    list[str], Field(min_length=1), BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
]
"""addresses of one file, tried in order: URLs (http, https, file) or paths; one may stand without brackets"""


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, values are not coerced, instances are read-only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# --- where a dataset comes from ---------------------------------------------------------------------------------------


class SampleSource(Section):
    """The embedded sticker shop: OpenMoji drawings, Unicode names, synthetic shoppers."""

    kind: Literal["sample"]
    users: Positive = 3600
    """shoppers before filtering"""
    items: Positive = 1600
    """stickers before filtering; the first in Unicode order, no skin tones"""
    seed: int = 0
    """another seed is another shop with the same stickers"""


class AmazonSource(Section):
    """Raw Amazon review data as published; `category: Baby` stands for the publisher's addresses of that category."""

    kind: Literal["amazon2014", "amazon2018", "amazon2023"]
    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    """as the publisher spells it: fills in what of `reviews` and `metadata` is not given"""
    reviews: Mirrors
    """reviews as JSON lines, or a CSV of ratings"""
    metadata: Mirrors
    """meta_*.json.gz"""
    features: dict[Name, Mirrors] = {}
    """feature set name -> image_features_*.b, by ASIN: a set of its own, and beside MiniLM if encode makes that"""
    sha256: dict[str, str] = {}
    """reviews, metadata, feature:<name> -> hex digest that the file must have"""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        known = isinstance(given, dict) and given.get("kind") in ADDRESSES and isinstance(given.get("category"), str)
        return addresses(given["kind"], given["category"]) | given if known else given

    @model_validator(mode="after")
    def _by_asin(self) -> AmazonSource:
        for name, mirrors in self.features.items():
            if odd := [a for a in mirrors if not a.endswith((".b", ".b.gz"))]:
                raise ValueError(f"features.{name}: {odd[0]} does not end in .b; expected records of ASIN and float32")
        return self


class MmrecSource(Section):
    """A folder in MMRec's format: the split is imported as it is, features come ready."""

    kind: Literal["mmrec"]
    interactions: Mirrors
    """*.inter or *.inter.gz: tab separated userID itemID rating timestamp x_label"""
    items: Mirrors | None = None
    """JSON lines or CSV with itemID and any of asin, title, brand, categories, description, imUrl"""
    features: dict[Name, Mirrors] = {}
    """feature set name -> .npy file, row i = itemID i"""
    timestamps: Literal["unix", "order", "none"] = "none"
    """what the timestamp column means: seconds, the position in the user's sequence, or nothing"""
    sha256: dict[str, str] = {}
    """interactions, metadata, feature:<name> -> hex digest that the file must have"""


class TabularSource(Section):
    """Two files of your own, as Parquet, CSV or JSON lines."""

    kind: Literal["tabular"]
    interactions: Mirrors
    """a row an interaction: user, item, and if there are, rating and timestamp (seconds, or a date)"""
    items: Mirrors | None = None
    """a row an item: item, and any of title, brand, categories, description, image_urls; | parts several in one cell"""
    columns: dict[
        Literal["user", "item", "rating", "timestamp", "title", "brand", "categories", "description", "image_urls"], str
    ] = {}
    """our name -> the files' name, where they differ"""
    sha256: dict[Name, str] = {}
    """interactions, metadata -> hex digest that the file must have"""


Source = Annotated[SampleSource | AmazonSource | MmrecSource | TabularSource, Field(discriminator="kind")]
KINDS = ("sample", "amazon2014", "amazon2018", "amazon2023", "mmrec", "tabular")


# --- one class a stage ------------------------------------------------------------------------------------------------


class Download(Section):
    """Fetching raw files."""

    timeout: Rate = 30.0
    """seconds without a byte before a try is given up"""
    retries: Annotated[int, Field(ge=0)] = 5
    """tries after the first, with exponential back-off"""


class Interactions(Section):
    """Filtering, numbering, splitting."""

    user_core: Positive = 5
    """users with fewer interactions are dropped; repeatedly, because that costs items theirs"""
    item_core: Positive = 5
    """items with fewer interactions are dropped, likewise"""
    protocol: Literal["mmrec", "leave-one-out", "user-time", "global-time"] = "mmrec"
    """how each user's interactions are split: method.md section 6"""
    memory_limit: str = "1GiB"
    """DuckDB spills to disk above this; its process takes some hundred MiB more, and reserves twice as much"""
    seed: int = 0
    """of splits that are random"""


class Items(Section):
    """Cleaning and composing text."""

    max_reject_share: Share = 0.01
    """a larger share of unreadable metadata lines fails the stage"""


class Images(Section):
    """Fetching and normalising pictures."""

    size: Positive = 256
    """shorter side after resizing, pixels; never enlarged"""
    quality: Annotated[int, Field(ge=1, le=95)] = 90
    """JPEG quality of the stored picture"""
    timeout: Rate = 20.0
    """seconds for one try"""
    retries: Annotated[int, Field(ge=0)] = 3
    """tries after the first, for failures that may pass"""
    per_host: Positive = 8
    """simultaneous requests to one host"""
    rate: Rate = 50.0
    """requests a second to one host, at most"""
    give_up_after: Positive = 16
    """connections in a row that a host refuses before the rest of its pictures end as unreachable"""
    allow_file: bool = False
    """read file:// addresses that the metadata names; for data you made yourself"""
    private_hosts: list[str] = []
    """names or numbers inside private networks, or of this machine, that may be asked; all others there may not"""
    mirrors: dict[str, Annotated[str, Field(pattern=r"^https?://[^/]+$")]] = {}
    """host -> http(s)://host[:port] that is asked in its place; what is recorded is the address of the metadata"""
    placeholders: list[Annotated[str, Field(pattern=r"^([0-9a-f]{64}|[0-9a-f]{16})$")]] = []
    """pictures that say there is none: sha256 of their bytes or, for all that look like them, phash in hexadecimal"""
    shared_above: Positive = 10
    """a picture of more items than this is listed in run.json: it may be a placeholder"""
    max_bytes: Positive = 20_000_000
    """a larger download is refused"""
    max_pixels: Positive = 100_000_000
    """a larger picture is refused before decoding"""
    shard_rows: Positive = 16384
    """items a Parquet file: about 256 MB, at 16 kB a picture"""


class Pretrain(Section):
    """Inter-content alignment: BEiT3 trained by masked image and language modelling (method.md section 2)."""

    size: Literal["small", "base", "large"] = "small"
    """network: small fits the embedded dataset; base and large are the published shapes"""
    init: str | None = None
    """path or URL of official weights (.pth or .safetensors) to start from; none trains from scratch"""
    init_sha256: Sha256 | None = None
    """of the file that `init` names"""
    tokenizer: str | None = None
    """path or URL of a SentencePiece model, for official weights theirs (beit3.spm); none trains one"""
    tokenizer_sha256: Sha256 | None = None
    """of the file that `tokenizer` names"""
    visual_tokens: Literal["kmeans", "vqkd"] = "kmeans"
    """what MIM predicts: the dataset's own typical patches, or the codes of BEiT v2's tokenizer"""
    vqkd: str | None = None
    """path or URL of the weights of BEiT v2's tokenizer (vqkd_encoder_base_decoder_*.pth)"""
    vqkd_sha256: Sha256 | None = None
    """of the file that `vqkd` names"""
    vocab: Positive = 2000
    """SentencePiece pieces, trained on the dataset's text"""
    codes: Positive = 128
    """discrete visual tokens: FAISS k-means centroids over patches"""
    image_mask: Share = 0.4
    """share of patches masked, block-wise"""
    text_mask: Share = 0.5
    """share of text tokens masked in an image-text pair"""
    text_only_mask: Share = 0.15
    """share of text tokens masked where the image is absent or hidden"""
    hide: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """share of pairs shown as text alone, and as many as image alone"""
    summary: Weight = 1.0
    """weight of telling the whole item from CLS alone; 0: MIM and MLM only"""
    content: Weight = 1.0
    """weight of naming the item among those of the batch by its content, from CLS alone"""
    itc: Weight = 0.0
    """weight of bringing an item's picture alone and its text alone together, away from those of other items"""
    collaborative: Weight = 0.0
    """weight of bringing items together that many users have in common; reads train interactions"""
    common_users: Positive = 3
    """train users that two items must have in common to be brought together"""
    temperature: Annotated[float, Field(ge=0.01)] = 0.1
    """of the softmax over cosines in the three terms above"""
    whiten: bool = True
    """whether features are whitened CLS vectors; false: CLS as it is"""
    held_out: Share = 0.1
    """share of items that only measure accuracy"""
    epochs: Annotated[int, Field(ge=0)] = 24
    """0 leaves the network as it was initialised"""
    batch_size: Positive = 32
    """items a step of the optimiser, over all processes"""
    accumulate: Positive = 1
    """parts that a process computes its items of a step in, for less memory; the same step, but that items are told
    apart from fewer others by content, itc and collaborative"""
    lr: Rate = 1e-3
    """peak learning rate of AdamW"""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """each layer's learning rate as a share of that of the layer above; 1: the same, below it to go on from `init`"""
    weight_decay: Weight = 0.05
    warmup: Share = 0.1
    """share of steps with rising learning rate, cosine after it"""
    clip: Rate = 3.0
    """gradient norm"""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """decay of the average of the weights that is measured and written in their place; 0: the last weights"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of matrix products; auto: bfloat16 on a GPU, float32 on a CPU"""
    compile: bool = False
    """whether torch.compile fuses the encoder, for a minute or more at the start; on a CPU it needs a C++ compiler"""
    checkpoint_every: Positive = 100
    """steps between checkpoints that a killed run resumes from; one holds three copies of the weights, with ema four"""
    threads: Positive = 2
    """of the CPU, each process; another number is another order of sums, so other last bits"""
    seed: int = 0


class Encode(Section):
    """Items -> feature sets."""

    encoders: list[Name] = ["beit3", "beit3-image-masked", "beit3-text-masked", "minilm-cnn"]
    """which content encoders to run; see pipeline/encoders"""
    controls: list[Literal["random", "shuffled", "constant"]] = ["random", "shuffled", "constant"]
    """feature sets that a useful one must beat; shuffled permutes the first encoder's rows"""
    engine: Literal["local", "ray"] = "local"
    """where encoders run: in this process, or on a Ray cluster (extra `ray`) whose nodes see the same files"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of BEiT3's products; features are float32 either way. On a GPU, or a CPU that multiplies bfloat16, the faster one
    for base and large; CLS keeps a cosine of 0.999 to float32, and less where whitening stretches what is left"""
    batch_size: Positive = 64
    """items a forward pass; changes speed, and results by rounding alone"""
    workers: Positive = 2
    """threads that decode pictures and split texts beside the network; changes speed alone"""
    max_tokens: Annotated[int, Field(ge=3)] = 128
    """text beyond this is cut"""
    clip_model: str = "ViT-B-32"
    """open_clip architecture of the encoder `clip`"""
    clip_weights: str | None = None
    """open_clip tag or local file; `clip` needs one"""
    clip_joint: Literal["mean", "concat"] = "mean"
    """how `clip` joins image and text"""
    shard_rows: Positive = 8192
    """items a Parquet file"""
    seed: int = 0


class Graph(Section):
    """Item-item neighbours."""

    k: Positive = 10
    """neighbours an item, itself included"""
    index: Literal["auto", "exact", "ivf", "hnsw"] = "auto"
    """exact compares all pairs; ivf and hnsw are faster and miss some, which run.json tells; auto: exact, above a size
    ivf"""
    exact_up_to: Positive = 70_000
    """items; where auto goes over to ivf"""


FAST: dict[str, Any] = {"mode": "frozen", "precision": "bf16", "lr": 5e-3, "epochs": 10, "patience": 3}
"""the values that `recipe: fast` has for keys that are not given"""


class Train(Section):
    """AlignRec (method.md sections 3, 4); benchmark's other models use the keys that they share."""

    recipe: Literal["published", "fast"] = "published"
    """what keys that are not given are: the published settings, or those of FAST: ten times the learning rate, fixed
    features, rounded products, and a stop at the first lull"""
    features: Name = "beit3"
    """feature set the released recommender is trained on"""
    standardise: bool = False
    """features are centred and scaled, column by column, before a model reads them; the item graph is not made anew"""
    mode: Literal["compat", "learned", "frozen"] = "compat"
    """compat: as the published code, the feature table learns and moves REG's target; learned: it learns, the target
    stays; frozen: the paper's reading, neither moves"""
    dim: Positive = 64
    """embedding width D"""
    layers: Annotated[int, Field(ge=0)] = 2
    """LightGCN layers over the user-item graph"""
    item_layers: Annotated[int, Field(ge=0)] = 1
    """propagations over the item graph; 0: none"""
    content: bool = True
    """AlignRec's content branch; false: the ID branch alone, without CCA and REG"""
    gate: bool = True
    """content gates the item's ID embedding; false: the projected features walk the item graph themselves"""
    self_neighbour: bool = True
    """the published item graph has each item among its own neighbours; false: only others"""
    symmetric: bool = False
    """false, as published: an edge counts as the search found it; true: both ways"""
    batch_size: Positive = 2048
    lr: Rate = 5e-4
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.96
    """factor per 50 epochs, applied smoothly"""
    epochs: Positive = 1000
    """at most"""
    patience: Positive = 30
    """evaluations without a better valid Recall@20 before stopping"""
    falling: Share | None = None
    """a run whose patience is over goes on while its last `patience` epochs took more than this share of the first
    epoch's loss off the loss, see docs/accuracy.md; null: it stops, as published"""
    decimals: Annotated[int, Field(ge=0)] | None = 4
    """valid Recall@20 is rounded to so many before it is compared, as published; null: compared as it is"""
    cca: Weight = 0.01
    """weight of content-ID alignment"""
    reg: Weight = 0.1
    """weight of the similarity regulariser"""
    reg_cosine: bool = False
    """false, as published: REG compares the content branch's dot products with cosines; true: its cosines"""
    uia: Weight = 0.1
    """weight of user-item alignment"""
    l2: Weight = 1e-4
    """weight of the embeddings' norm"""
    l2_constant: bool = True
    """AlignRec's L2 is divided by batch_size, as published; false: by the batch's pairs, of which the last has few"""
    temperature: Rate = 0.2
    """of CCA's InfoNCE"""
    precision: Literal["exact", "bf16"] = "exact"
    """bf16: AlignRec's largest products read bfloat16, a third faster where the processor can; other last digits"""
    checkpoint_every: Positive = 10
    """epochs between checkpoints that a killed run resumes from"""
    threads: Positive = 1
    """of the train stage on CPU; more are faster on large data, and round differently"""
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        return FAST | given if isinstance(given, dict) and given.get("recipe") == "fast" else given


class TrainItemKnn(Train):
    """Item-based nearest neighbours on co-interactions, without training."""

    neighbours: Positive = 100
    """most similar items that an item keeps"""


class TrainMmgcn(Train):
    """MMGCN; the learning rate of the published benchmarks, as in the classes below."""

    lr: Rate = 1e-3


class TrainGrcn(Train):
    """GRCN."""

    lr: Rate = 1e-3
    routings: Positive = 3
    """iterations of neighbour routing T"""


class TrainDualgnn(Train):
    """DualGNN."""

    lr: Rate = 1e-3
    neighbours: Positive = 10
    """users with the most items in common that a user listens to"""


class TrainSlmrec(Train):
    """SLMRec."""

    lr: Rate = 1e-3
    contrast: Weight = 0.01
    """weight of the self-supervised task"""


class TrainBm3(Train):
    """BM3."""

    lr: Rate = 1e-3
    layers: Annotated[int, Field(ge=0)] = 1
    drop: Share = 0.3
    """share of a vector's entries that the second view lacks"""
    learner: Literal["content", "id"] = "content"
    """which side of the alignment of content and ID learns; the other is the target, and has no gradient"""


class TrainLattice(Train):
    """LATTICE."""

    lr: Rate = 1e-3
    skip: Share = 0.7
    """share of the fixed graph in the sum with the learned one, lambda"""


class TrainFreedom(Train):
    """FREEDOM."""

    lr: Rate = 1e-3
    drop: Share = 0.8
    """share of user-item edges that an epoch lacks"""
    first: Share = 0.9
    """weight of the first modality's graph; the others share the rest"""
    modal: Weight = 1e-3
    """weight of the modalities' own ranking losses, lambda"""


class TrainMgcn(Train):
    """MGCN."""

    lr: Rate = 1e-3
    contrast: Weight = 0.01
    """weight of the contrastive loss between behaviour and content"""


class Overrides(Section):
    """model -> keys of `train` that differ for it, and the keys that only it has."""

    itemknn: TrainItemKnn = TrainItemKnn()
    contentknn: Train = Train()
    bpr: Train = Train()
    lightgcn: Train = Train()
    vbpr: Train = Train()
    mmgcn: TrainMmgcn = TrainMmgcn()
    grcn: TrainGrcn = TrainGrcn()
    dualgnn: TrainDualgnn = TrainDualgnn()
    slmrec: TrainSlmrec = TrainSlmrec()
    bm3: TrainBm3 = TrainBm3()
    lattice: TrainLattice = TrainLattice()
    freedom: TrainFreedom = TrainFreedom()
    mgcn: TrainMgcn = TrainMgcn()
    alignrec: Train = Train()


Model = Literal[
    "itemknn", "contentknn", "bpr", "lightgcn", "vbpr", "mmgcn", "grcn", "dualgnn", "slmrec", "bm3", "lattice",
    "freedom", "mgcn", "alignrec",
]  # fmt: skip


class Probe(Section):
    """Feature sets judged before and by training (method.md section 5)."""

    ks: list[Positive] = [5, 10, 20, 50]
    mask_ratio: Share = 0.5
    """share of items whose image (or text) is hidden in the mask-modality probe"""
    mask_seeds: Positive = 3
    """recommender trainings per masked modality"""
    workers: Positive = 2
    """trainings at a time, one thread each"""


class Benchmark(Section):
    """Models x feature sets x seeds under one protocol."""

    models: list[Model] = ["bpr", "lightgcn", "vbpr", "alignrec"]
    features: list[Name] = ["beit3", "minilm-cnn", "random", "shuffled", "constant"]
    """feature sets for the models that use features"""
    protocol: Literal["mmrec", "strict"] = "mmrec"
    """mmrec masks train items at test, as published tables do; strict masks train and valid"""
    seeds: Positive = 3
    ks: list[Positive] = [5, 10, 20, 50]
    """cutoffs"""
    modalities: dict[Name, list[Positive]] = {"minilm-cnn": [384, 1280]}
    """feature set -> widths of the modalities that stand side by side in it, for models that treat each by itself; a
    feature set that is not named is one modality"""
    overrides: Overrides = Overrides()
    ablations: dict[Name, Train] = {}
    """name of a row -> keys of `train` that differ from AlignRec on `train.features`"""
    ablation_seeds: Positive = 1
    """runs of each ablation, at most `seeds`; compared with the first runs of the model as it is"""
    workers: Positive = 2
    """runs at a time, one thread each"""

    def settings(self, model: str, train: Train, ablation: str = "") -> Train:
        """Return the model's own defaults, overlaid by `train`, `overrides` and the ablation, in this order."""
        own: Train = getattr(self.overrides, model)
        given = train.model_dump(exclude_unset=True) | own.model_dump(exclude_unset=True)
        if ablation:
            given |= self.ablations[ablation].model_dump(exclude_unset=True)
        return type(own).model_validate(given)

    @field_serializer("overrides")
    def _only_given(self, overrides: Overrides) -> dict[str, dict[str, Any]]:
        return {model: own for model, own in overrides.model_dump(exclude_unset=True).items() if own}

    @field_serializer("ablations")
    def _only_changed(self, ablations: dict[str, Train]) -> dict[str, dict[str, Any]]:
        return {name: changed.model_dump(exclude_unset=True) for name, changed in ablations.items()}


class Range(Section):
    """Where TPE looks for one setting; whole numbers if both ends are."""

    low: int | float
    high: int | float
    log: bool = True
    """whether the exponent is drawn evenly"""

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if not (0 if self.log else -math.inf) < self.low < self.high:
            raise ValueError(f"low must be below high{', and both above 0 with log' if self.log else ''}")
        return self


RATES: dict[str, Range] = {"lr": Range(low=1e-4, high=5e-2), "l2": Range(low=1e-5, high=0.3)}
LOSSES: dict[str, Range] = {
    "cca": Range(low=1e-4, high=0.1),
    "reg": Range(low=1e-2, high=1.0),
    "uia": Range(low=1e-2, high=1.0),
}
AUTHORS: dict[str, list[int | float]] = {
    "lr": [5e-3, 3e-3, 1e-3, 7e-4, 5e-4, 3e-4, 1e-4],
    "cca": [1e-4, 1e-3, 5e-3, 1e-2, 1e-1],
    "reg": [0.1, 0.2, 0.3, 0.4, 0.5],
}
"""the grid of AlignRec's authors, method.md section 4"""


class Sweep(Section):
    """Settings of `train` tried against each other: `alignrec sweep`. Valid Recall@20 chooses."""

    grids: dict[Name, dict[Name, Annotated[list[int | float], Field(min_length=1)]]] = {"authors": AUTHORS}
    """`--grid <name>`: key of `train` -> values; all combinations are tried"""
    spaces: dict[Model, dict[Name, Range]] = {"alignrec": RATES | LOSSES}
    """`--tpe`: model -> key of `train` -> range; a model that is not named: lr and l2"""
    seeds: Positive = 1
    """trainings of each setting, of which valid is averaged"""
    startup: Positive = 8
    """settings that TPE draws at random before it learns from them, and that end before one is pruned"""
    warmup: Positive = 4
    """epochs before a setting may be pruned for being below the median of the others"""
    test_selected: bool = False
    """also open test for every setting, as published tables do, and show its choice under `selected_by: test`"""
    workers: Positive = 2
    """trainings at a time, one thread each; another number may try other settings"""

    def space(self, model: str) -> dict[str, Range]:
        """Return where TPE looks for a model's settings."""
        return {str(name): found for name, found in self.spaces.items()}.get(model, RATES)


class Report(Section):
    """The HTML page."""

    gallery_items: Positive = 24
    """items shown with their neighbours"""
    neighbours: Positive = 6
    """pictures beside each item"""
    searchable: Positive = 3000
    """up to so many items the page carries every picture, and can search them all"""


class Publish(Section):
    """The release folder."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = "0.1.0"
    """semantic version of the released data"""
    features: list[Name] = ["beit3", "beit3-image-masked", "beit3-text-masked", "minilm-cnn"]
    """feature sets to release"""
    half: bool = False
    """also release each feature set as float16, half the bytes: folder features-half"""
    exact_up_to: Positive = 70_000
    """items up to which the index of the recommender's vectors is exact; beyond, an inverted file"""


class Params(Section):
    """The whole of params.yaml."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    """what `dvc repro` builds; each is declared under `sources`"""
    sources: dict[Name, Source]
    download: Download = Download()
    interactions: Interactions = Interactions()
    items: Items = Items()
    images: Images = Images()
    pretrain: Pretrain = Pretrain()
    encode: Encode = Encode()
    graph: Graph = Graph()
    train: Train = Train()
    probe: Probe = Probe()
    benchmark: Benchmark = Benchmark()
    sweep: Sweep = Sweep()
    report: Report = Report()
    publish: Publish = Publish()

    def source(self, dataset: str) -> SampleSource | AmazonSource | MmrecSource | TabularSource:
        """Return where `dataset` comes from; an unknown name raises UserError with the nearest known one."""
        if dataset not in self.sources:
            raise UserError(f"no dataset '{dataset}' under sources in the parameters{_nearest(dataset, self.sources)}")
        return self.sources[dataset]


def load(path: Path) -> Params:
    """Read and validate a parameter file.

    Raises:
        UserError: the file is absent, no YAML mapping, or breaks a class above; one line, first fault.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such parameter file; run from the project's root or pass --params") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not YAML: {' '.join(str(e).split())}") from None
    try:
        params = Params.model_validate(raw)
    except ValidationError as e:
        raise UserError(f"{path}: {_first_fault(e)}") from None
    for name in params.datasets:
        params.source(name)
    return params


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    loc = [
        str(part) for part in fault["loc"] if part not in KINDS or fault["loc"].index(part) < 2
    ]  # pydantic adds the union's tag to the path
    where = ".".join(loc) or "the file"
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{where}'{_nearest(loc[-1], _valid_keys(fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"'{where}' is required"
    return f"'{where}': {fault['msg'].lower()}, found {fault['input']!r}"


def _valid_keys(loc: tuple[Any, ...]) -> list[str]:
    """Return the keys of the section at `loc`, following the annotations from Params down."""
    at: Any = Params
    for part in loc:
        if isinstance(at, type) and issubclass(at, Section):
            at = at.model_fields[part].annotation
        elif get_origin(at) is dict:
            at = get_args(at)[1]
        for option in _members(at):  # a tagged union: the tag is the next part of the path
            kind = option.model_fields.get("kind")
            if kind and part in get_args(kind.annotation):
                at = option
    return list(at.model_fields) if isinstance(at, type) and issubclass(at, Section) else []


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    return get_args(annotation) if isinstance(annotation, types.UnionType) else ()


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; valid: {', '.join(known)}" if known else ""
