"""Tiny random networks in published formats, one folder of a few hundred kilobytes each."""

import json
from pathlib import Path
from typing import Any

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SIDE, PATCH, WIDTH = 32, 16, 32


def siglip(folder: Path) -> Path:
    """Two towers; transformers."""
    import transformers as t

    tower = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    texts = tower | {"vocab_size": 64, "max_position_embeddings": 16, "projection_size": WIDTH}
    images = tower | {"image_size": SIDE, "patch_size": PATCH}
    process = t.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    config = t.SiglipConfig(text_config=texts, vision_config=images)
    return _saved(folder, t.SiglipModel, config, process, _bert_tokenizer(model_input_names=["input_ids"]))


def clip(folder: Path) -> Path:
    """Two towers of different widths; transformers."""
    import transformers as t

    tower = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 24}
    tokenizer = _clip_tokenizer()
    texts = tower | {"hidden_size": 32, "vocab_size": len(tokenizer), "max_position_embeddings": 20}
    texts |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    images = tower | {"hidden_size": 48, "image_size": SIDE, "patch_size": PATCH}
    process = t.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    config = t.CLIPConfig(text_config=texts, vision_config=images, projection_dim=24)
    return _saved(folder, t.CLIPModel, config, process, tokenizer)


def dinov2(folder: Path) -> Path:
    """Images only; transformers."""
    import transformers as t

    config = t.Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=SIDE, patch_size=PATCH
    )
    process = t.BitImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return _saved(folder, t.Dinov2Model, config, process)


def dinov3(folder: Path) -> Path:
    """Images only; transformers."""
    import transformers as t

    config = t.DINOv3ViTConfig(
        hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=PATCH, num_register_tokens=2,
    )  # fmt: skip
    process = t.DINOv3ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    return _saved(folder, t.DINOv3ViTModel, config, process)


def siglip2(folder: Path) -> Path:
    """Two towers, images of any aspect ratio; transformers."""
    import transformers as t

    tower = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    texts = tower | {"vocab_size": 64, "max_position_embeddings": 16, "projection_size": WIDTH}
    images = tower | {"patch_size": PATCH, "num_patches": 16}
    process = t.Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=16)
    config = t.Siglip2Config(text_config=texts, vision_config=images)
    return _saved(folder, t.Siglip2Model, config, process, _bert_tokenizer(model_input_names=["input_ids"]))


def bert(folder: Path) -> Path:
    """Texts only; transformers."""
    import transformers as t

    config = t.BertConfig(
        vocab_size=64, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=24,
    )  # fmt: skip
    return _saved(folder, t.BertModel, config, _bert_tokenizer())


def qwen(folder: Path) -> Path:
    """A text decoder; transformers."""
    import transformers as t

    tokenizer = _qwen_tokenizer()
    config = t.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, intermediate_size=48, max_position_embeddings=64,
    )  # fmt: skip
    return _saved(folder, t.Qwen3Model, config, tokenizer)


def sentences(folder: Path, **prompts: str) -> Path:
    """Texts only; sentence-transformers: BERT, mean pooling, unit length."""
    return _pooled(folder, bert(folder / "base"), "mean", prompts=prompts)


def _pooled(folder: Path, base: Path, pooling: str, **options: Any) -> Path:
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    return modules(folder, [Transformer(str(base)), Pooling(WIDTH, pooling), Normalize()], **options)


def modules(folder: Path, parts: list[Any], **options: Any) -> Path:
    """Modules of sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(modules=parts, device="cpu", **options).save(str(folder / "model"))
    return folder / "model"


def cls_pooled(folder: Path) -> Path:
    """Texts only; sentence-transformers: BERT, CLS, a dense layer, prompts for queries and passages."""
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    torch.manual_seed(1)
    parts = [Transformer(str(bert(folder / "base"))), Pooling(WIDTH, "cls"), Dense(WIDTH, 24)]
    return modules(folder, parts, prompts={"query": "ask ", "passage": "item "}, default_prompt_name="query")


def last_pooled(folder: Path) -> Path:
    """Texts only; sentence-transformers: Qwen3, last token, prompts for queries and documents."""
    prompts = {"query": "ask ", "document": "item "}
    return _pooled(folder, qwen(folder / "base"), "lasttoken", prompts=prompts)


def static(folder: Path) -> Path:
    """Texts only; sentence-transformers: a mean of embeddings of tokens."""
    return modules(folder, [_static()], prompts={"document": "item "})


def routed(folder: Path) -> Path:
    """Texts only; sentence-transformers: a static network for queries, BERT for documents."""
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    documents = [Transformer(str(bert(folder / "base"))), Pooling(WIDTH, "mean")]
    # without a task, the Router takes the route of queries
    return modules(folder, [Router.for_query_document([_static()], documents, default_route="query")])


def model2vec(folder: Path) -> Path:
    """Texts only; model2vec's own format, of embeddings that several tokens share."""
    from safetensors.torch import save_file

    tokenizer = _bert_tokenizer().backend_tokenizer
    tokens = tokenizer.get_vocab_size()
    torch.manual_seed(2)
    folder.mkdir(parents=True)
    tensors = {
        "embeddings": torch.randn(tokens // 2, WIDTH),
        "mapping": torch.arange(tokens) % (tokens // 2),
        "weights": torch.rand(tokens, dtype=torch.float64),
    }
    save_file(tensors, folder / "model.safetensors")
    tokenizer.enable_truncation(512)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _static() -> Any:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(2)
    return StaticEmbedding(_bert_tokenizer(), embedding_dim=WIDTH)


def multimodal(folder: Path) -> Path:
    """Images, texts, and both in one pass; sentence-transformers: Qwen3-VL, last-token pooling."""
    import transformers as t

    names = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _qwen_tokenizer(names)
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(names), strict=True))
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    texts = heads | {
        "vocab_size": len(tokenizer), "hidden_size": WIDTH, "num_hidden_layers": 2, "intermediate_size": 48,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
    }  # fmt: skip
    images = {
        "depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "patch_size": PATCH,
        "out_hidden_size": WIDTH, "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    config = t.Qwen3VLConfig(
        text_config=texts, vision_config=images, image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    pixels = {"patch_size": PATCH, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
    process = t.Qwen3VLProcessor(
        image_processor=t.Qwen2VLImageProcessor(**pixels), tokenizer=tokenizer,
        video_processor=t.Qwen3VLVideoProcessor(**pixels), chat_template=TEMPLATE,
    )  # fmt: skip
    return _pooled(folder, _saved(folder / "base", t.Qwen3VLModel, config, process), "lasttoken")


TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
)


def timm(folder: Path) -> Path:
    """Images only; timm."""
    from timm import create_model
    from timm.models import save_for_hf

    torch.manual_seed(0)
    network = create_model("vit_tiny_patch16_224", img_size=SIDE, embed_dim=WIDTH, depth=2, num_heads=2, num_classes=3)
    args = {"img_size": SIDE, "embed_dim": WIDTH, "depth": 2, "num_heads": 2}
    save_for_hf(network, folder, model_config={"input_size": (3, SIDE, SIDE)}, model_args=args, safe_serialization=True)
    return folder


def open_clip(folder: Path) -> Path:
    """Two towers; open_clip."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    shape: dict[str, Any] = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": WIDTH, "patch_size": PATCH, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
    }
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    save_file(CLIP(**shape).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": shape, "preprocess_cfg": {}}))
    return folder


def _saved(folder: Path, kind: Any, config: Any, *processors: Any) -> Path:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)
    return folder


def _bert_tokenizer(**options: Any) -> Any:
    from transformers import BertTokenizer

    pieces = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, **options)


def _clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])


def _qwen_tokenizer(special: list[str] | None = None, **options: Any) -> Any:
    from transformers import Qwen2Tokenizer

    words = [*LETTERS, "Ġ", "Ċ", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate(words)}
    return Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=special, **options)
