"""Section `pretrain` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.config.base import Count, Name, Positive, Rate, Section, Sha256, Share, Weight


class Pretrain(Section):
    """Inter-content alignment: BEiT3 trained by masked image and language modelling (method.md section 2).

    The defaults are the recipe of docs/pretraining.md: beside MIM and MLM, CLS regresses vectors of frozen encoders.
    """

    size: Literal["small", "medium", "base", "large"] = "small"
    """network: small fits the embedded dataset; medium is between; base and large are the published shapes"""
    image: Positive | None = None
    """side that images are brought to, in pixels, a whole number of patches; by default the size's: 48, 96, 224, 224"""
    init: str | None = None
    """path or URL of official weights (.pth or .safetensors) to start from; none trains from scratch"""
    init_sha256: Sha256 | None = None
    """of the file that `init` names"""
    words: Literal["random", "minilm"] = "minilm"
    """what piece embeddings start from: noise, or MiniLM's word embeddings; with `init`, its own"""
    text_experts: Literal["random", "minilm"] = "random"
    """what the text experts of each layer start from: noise, or MiniLM's layers, at size medium; excludes `init`"""
    tokenizer: str | None = None
    """path or URL of a SentencePiece model, for official weights theirs (beit3.spm); none trains one"""
    tokenizer_sha256: Sha256 | None = None
    """of the file that `tokenizer` names"""
    visual_tokens: Literal["kmeans", "vqkd", "teacher-kmeans", "teacher-vqkd"] = "kmeans"
    """what MIM predicts: k-means centroids of the dataset's patches, or the codes of BEiT v2's tokenizer; learned from
    a teacher: k-means centroids of its feature map, or the codes of a tokenizer like BEiT v2's that is trained here"""
    teacher: Name = "cnn"
    """encoder whose feature map `teacher-kmeans` and `teacher-vqkd` learn from: a name of section `encoders`, or cnn"""
    vqkd: str | None = None
    """path or URL of the weights of BEiT v2's tokenizer (vqkd_encoder_base_decoder_*.pth)"""
    vqkd_sha256: Sha256 | None = None
    """of the file that `vqkd` names"""
    vqkd_width: Annotated[int, Field(gt=0, multiple_of=64)] = 128
    """of the tokenizer that `teacher-vqkd` trains; a multiple of 64, which is the width of an attention head"""
    vqkd_layers: Positive = 3
    """of that tokenizer's encoder"""
    vqkd_epochs: Positive = 30
    """passes over the images in which it is trained"""
    vqkd_lr: Rate = 1e-3
    """peak learning rate of its AdamW; `warmup` holds here too"""
    max_tokens: Annotated[int, Field(ge=3)] = 1022
    """of a text that are read, the rest is cut; published weights have 1,022 positions, interpolated for more; a
    network from nothing has as many as the longest text"""
    vocab: Positive = 2000
    """SentencePiece pieces, trained on the dataset's text"""
    codes: Positive = 128
    """discrete visual tokens, at most: centroids of k-means, or the codebook of `teacher-vqkd`"""
    image_mask: Share = 0.4
    """share of patches masked, block-wise"""
    text_mask: Share = 0.5
    """share of text tokens masked in an image-text pair"""
    text_only_mask: Share = 0.15
    """share of text tokens masked where the image is absent or hidden"""
    augment: list[Literal["crop", "flip", "colour"]] = []
    """how the images of each epoch vary: crops of at least half the area; mirror images, not for images with writing;
    brightness, contrast and saturation"""
    hide: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """share of pairs whose image is hidden, and as many whose text is hidden"""
    summary: Weight = 0.0
    """weight of the readout loss: CLS alone predicts all patches and pieces of the item"""
    content: Weight = 0.0
    """weight of InfoNCE between CLS and the content of the items of the batch"""
    itc: Weight = 0.0
    """weight of InfoNCE between an item's image alone and its text alone (image-text contrast)"""
    collaborative: Weight = 0.0
    """weight of InfoNCE between items that many users have in common; reads train interactions"""
    common_users: Positive = 3
    """train users that two items must have in common to be positives"""
    hard_negatives: Annotated[int, Field(ge=0, le=10)] = 0
    """items of similar text that come into a batch beside an item, as hard negatives of content, itc and collaborative,
    mainly of itc; 0: batches are random"""
    distill: Weight = 10.0
    """weight of regressing the vectors of frozen encoders from CLS, where it sees what they read"""
    distill_from: Annotated[list[Name], Field(min_length=1)] = ["minilm", "cnn", "tfidf"]
    """these encoders: names of section `encoders`, or kinds; none that is pre-trained here; where the key is not given,
    those of them that read something which the data has"""
    factors: Count = 0
    """singular vectors of train interactions, at most, as one more teacher of `distill`: it knows the items that train
    has, and no others; 0: none"""
    cls_pass: Literal["masked", "whole"] = "whole"
    """the pass whose CLS summary, content and distill read: that of MIM and MLM, or one more with nothing masked,
    where modalities stay hidden at the rate of `hide`"""
    cls_read: Literal["plain", "whitened"] = "whitened"
    """how they read it: as it is, or whitened; `beit3` is what the maps to `distill_from` read so"""
    temperature: Annotated[float, Field(ge=0.01)] = 0.1
    """of the softmax over cosines in content, itc and collaborative"""
    held_out: Share = 0.02
    """share of items that training does not see, to measure accuracy; their features are made like a new item's"""
    steps: Count = 3000
    """of the optimiser, at most; 0 leaves the network as it was initialised"""
    patience: Count = 0
    """measurements, of 20, without a higher cosine to the teachers on held-out items, after which training ends, and
    the weights of the highest are written: for an encoder of new items; 0: all steps are taken, and the last weights
    are written, as the items of the catalogue are best known then"""
    batch_size: Positive = 16
    """items a step of the optimiser, over all processes"""
    accumulate: Positive = 1
    """parts in which a process computes its items of a step, for less memory; the step is the same, except that
    content, itc and collaborative have fewer negatives"""
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
    """decay of the average of the weights, which is measured and written instead of them; 0: the last weights"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of matrix products; auto: bfloat16 on a GPU, float32 on a CPU"""
    compile: bool = False
    """whether torch.compile fuses the encoder, for a minute or more at the start; on a CPU it needs a C++ compiler"""
    checkpoint_every: Positive = 100
    """steps between checkpoints that a killed run resumes from; one holds three copies of the weights, with ema four"""
    threads: Positive = 2
    """of the CPU, each process; another number is another order of sums, so other last bits"""
    seed: int = 0

    @property
    def taught(self) -> bool:
        """Whether the teacher is read."""
        return self.visual_tokens.startswith("teacher-")

    @property
    def learns(self) -> bool:
        """Whether train interactions are read."""
        return bool(self.collaborative or (self.distill and self.factors))

    @property
    def objective(self) -> str:
        """The loss in words: MIM + MLM, and what is added to them with its weight."""
        added = {name: getattr(self, name) for name in ("summary", "content", "itc", "collaborative", "distill")}
        terms = ["MIM", "MLM", *(f"{weight:g} {name}" for name, weight in added.items() if weight)]
        teachers = [*self.distill_from, *(["factors"] if self.factors else [])]
        return " + ".join(terms) + (f" ({', '.join(teachers)})" if self.distill else "")

    @property
    def reading(self) -> str:
        """How CLS becomes the released feature, in words."""
        return "read by its teachers' linear maps" if self.distill and self.steps else "whitened"

    @model_validator(mode="before")
    @classmethod
    def _own_words(cls, given: Any) -> Any:
        """Weights that are given have words of their own."""
        return {"words": "random", **given} if isinstance(given, dict) and given.get("init") else given

    @field_validator("words", "text_experts")
    @classmethod
    def _without_init(cls, start: str, info: ValidationInfo) -> str:
        if start != "random" and info.data.get("init"):
            raise ValueError("pretrain.init names weights with a text half of their own; leave one of the two out")
        return start
