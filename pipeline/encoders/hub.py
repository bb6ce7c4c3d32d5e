"""Third-party models: a local folder, or a Hugging Face Hub repository at one commit."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

from alignrec.pipeline import io
from alignrec.pipeline.encoders.params import MAX_BATCH
from alignrec.pipeline.io.errors import Absent, UserError, one_line
from alignrec.pipeline.runtime.section import Section

Modality = Literal["image", "text"]
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # owner/name on the Hub
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}
WEIGHTS = "*.safetensors"
WANTED = {  # kind of encoder -> its weights
    "huggingface": "model*.safetensors",
    "sentence-transformers": WEIGHTS,
    "open_clip": "open_clip_model.safetensors",
    "timm": "model.safetensors",
}
MAX_NOTE = 500  # characters
LOCAL = "sha256:"  # prefix of a local folder's revision
# configurations, tokenizers and templates to download with the weights, without copies in other
# formats
ALWAYS = ["*.json", "*.txt", "*.jinja", "*.model", "*.spm", "*.tiktoken"]
NEVER = [
    "onnx/*",
    "openvino/*",
    "original/*",
    "coreml/*",
    "consolidated*",
    "*.fp16.safetensors",
    "checkpoint-*/*",
]


# arguments that other keys set, or that would load other files -> what to do about it
RESERVED: dict[str, str | None] = {
    "dtype": "take precision",
    "torch_dtype": "take precision",
    "precision": "take key precision of the encoder",
    "revision": "take key revision of the encoder",
    "trust_remote_code": "take key trust_remote_code of the encoder",
    "checkpoint_path": "give the weights as model",
    "gguf_file": "give the weights as safetensors",
    "subfolder": "give the folder as model",
    **dict.fromkeys(("adapter_kwargs", "cache_dir", "config", "device", "device_map", "token")),
    **dict.fromkeys(("load_weights", "local_files_only", "num_classes", "state_dict")),
    **dict.fromkeys(("use_safetensors", "weights_only")),
}


def _refuse_reserved(arguments: dict[str, Any]) -> dict[str, Any]:
    for name in arguments:
        if name in RESERVED or name.startswith("pretrained"):
            raise ValueError(f"no {name} here; {RESERVED.get(name) or 'leave it out'}")
    return arguments


Arguments = Annotated[dict[str, Any], AfterValidator(_refuse_reserved)]


class Options(Section):
    """Arguments that are passed to the library as they are."""

    model: Arguments = {}
    """arguments to load the network, such as attn_implementation, or global_pool of timm"""
    processing: Arguments = {}
    """arguments of the image processor, such as max_pixels, or crop_pct of timm"""


class Pretrained(Section):
    """Settings of all kinds that load a third-party model."""

    model: Annotated[str, Field(min_length=1)]
    """folder, or owner/name on the Hugging Face Hub"""
    revision: Annotated[str, Field(min_length=1)] | None = None
    """commit, tag or branch on the Hub; only a commit fixes the weights"""
    modalities: Annotated[list[Modality], Field(min_length=1, max_length=2)] | None = None
    """modalities to encode; by default all that the model supports"""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """precision of matrix products; features are always float32. auto: bfloat16 where the processor
    is fast at it, otherwise float32"""
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH)] | None = None
    """items per forward pass, in place of `encode.batch_size`"""
    trained_on: Annotated[str, Field(min_length=1, max_length=MAX_NOTE)] | None = None
    """data that the model was trained on, or `unknown`: a note for the card"""

    @property
    def folder(self) -> Path | None:
        path = Path(self.model).expanduser()
        return path if path.is_dir() else None

    def resolve_auto(self) -> str:
        """Return the precision that `auto` means on this processor."""
        from alignrec.pipeline.linalg import device  # loads torch

        return "bfloat16" if device.is_bf16_fast(device.pick_device()) else "float32"


class Adjustable(Pretrained):
    """Settings of kinds whose library takes arguments."""

    options: Options | None = None
    """arguments that are passed to the library"""

    def model_options(self) -> dict[str, Any]:
        return self.options.model if self.options else {}

    def processing_options(self) -> dict[str, Any]:
        return self.options.processing if self.options else {}


AnyPretrained = TypeVar("AnyPretrained", bound=Pretrained)


def with_owner(kind: str, params: AnyPretrained) -> AnyPretrained:
    """Complete a name that kind `timm` may abbreviate."""
    if kind != "timm" or params.folder is not None or "/" in params.model:
        return params
    return params.model_copy(update={"model": f"timm/{params.model}"})


@dataclass(frozen=True)
class Origin:
    """Files of a third-party model, found and checked."""

    folder: Path
    model: str  # owner/name, or the folder's name without its path
    revision: str  # commit on the Hub, or LOCAL and the SHA-256 of all files of a folder
    library: str  # package that loads it, with version
    reads: tuple[str, ...] = ("image", "text")  # modalities to encode
    prompt: str = ""  # prefix of every text
    task: str = ""  # task that is named to the model's modules; empty: none
    pooling: str = ""  # of tokens, where the kind chooses it
    trained_on: str = ""  # as stated in the parameters
    precision: str = ""  # that `auto` means on this processor; empty: as in the parameters
    fingerprint: Mapping[str, Any] | None = None  # for a released encoder, that of the released set
    # place in the set's encoder/ -> file of a released encoder, which needs nothing else
    kept: Mapping[str, Path] = field(default_factory=dict)
    read: Sequence[Path] = ()  # the files that are read of the folder; by default all

    def precision_of(self, params: Pretrained) -> str:
        return self.precision or params.precision

    def files(self) -> list[Path]:
        if self.read:
            return sorted(self.read)

        files = []
        for path in sorted(self.folder.rglob("*")):
            parts = path.relative_to(self.folder).parts
            is_hidden = any(part.startswith(".") for part in parts)
            if path.is_file() and not is_hidden:
                files.append(path)
        return files

    def restrict_to(self, where: str, params: Pretrained, reads: Sequence[str]) -> "Origin":
        """Limit the modalities to `params.modalities`; raises UserError for one that the network
        does not read.
        """
        for modality in params.modalities or ():
            if modality not in reads:
                raise UserError(
                    f"'{where}.modalities': {params.model} reads {' and '.join(reads)}, no "
                    f"{modality}"
                )
        return replace(self, reads=tuple(m for m in reads if m in (params.modalities or reads)))


def find_model(
    where: str, params: Pretrained, library: str, wanted: Sequence[str] = (WEIGHTS,)
) -> Origin:
    """Return a model's files, downloading them if needed; raises UserError if missing, incomplete
    or unsafe.
    """
    if params.folder is None:
        folder = _fetch_snapshot(where, params, wanted)
        found = Origin(folder, params.model, folder.name, with_version(library))
    elif params.revision is not None:
        raise UserError(
            f"'{where}.revision': {params.model} is a folder, which has none; leave it out"
        )
    else:
        found = Origin(params.folder, params.folder.resolve().name, "", with_version(library))
        files, total = found.files(), hashlib.sha256()
        for path, content in zip(files, io.sha256s(files), strict=True):
            total.update(f"{path.relative_to(found.folder).as_posix()} {content}\n".encode())
        found = replace(found, revision=f"{LOCAL}{total.hexdigest()}")
    _check_weights(f"'{where}.model': {params.model}", found)
    precision = params.resolve_auto() if params.precision == "auto" else ""
    return replace(found, trained_on=params.trained_on or "", precision=precision)


def with_version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


@contextmanager
def reraise_as_user_error(where: str) -> Iterator[None]:
    """Turn exceptions of third-party code into a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"'{where}': {type(e).__name__}: {one_line(e)}") from e


def read_model_json(where: str, path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, {} if the file is missing; raises UserError for other
    content.
    """
    if not path.is_file():
        return {}
    content = None
    with suppress(ValueError):
        content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise UserError(f"{where}: {path.name} is no JSON object; get the model again")
    return content


def _fetch_snapshot(where: str, params: Pretrained, wanted: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    refuse_misnamed(where, params)
    with _explain_failures(where, params, "fetching"):
        return Path(
            snapshot_download(
                params.model,
                revision=params.revision,
                allow_patterns=[*ALWAYS, *wanted],
                ignore_patterns=NEVER,
            )
        )


def refuse_misnamed(where: str, params: Pretrained) -> None:
    """Raise Absent if `model` is neither a folder nor a name on the Hub."""
    model = params.model
    if params.folder is None and (not REPOSITORY.fullmatch(model) or Path(model).exists()):
        remedy = "give a folder, or owner/name on the Hugging Face Hub"
        raise Absent(f"'{where}.model': no folder '{model}'; {remedy}")


def find_cached(params: Pretrained) -> Path | None:
    """Return the folder of a model that is on this machine with its weights, if any."""
    folder = params.folder
    if folder is None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            found = snapshot_download(params.model, revision=params.revision, local_files_only=True)
        except (OSError, ValueError, HfHubHTTPError, HFValidationError):
            return None
        folder = Path(found)
    return folder if any(folder.rglob(WEIGHTS)) else None


def ask_hub(where: str, params: Pretrained, timeout: float) -> None:
    """Raise Absent if the Hub has no such model or revision, UserError if it does not answer."""
    from huggingface_hub import HfApi

    refuse_misnamed(where, params)
    with _explain_failures(where, params, "asking for"):
        HfApi().model_info(params.model, revision=params.revision, timeout=timeout)


@contextmanager
def _explain_failures(where: str, params: Pretrained, doing: str) -> Iterator[None]:
    """Turn exceptions of the Hub's client into a UserError, Absent if asking again is no use."""
    from huggingface_hub import errors

    model = params.model
    kind: type[UserError] = Absent
    try:
        yield
        return
    except errors.GatedRepoError:
        reason = "accept its terms on its page, then set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        reason = (
            "neither a folder nor a model on the Hub that you may read; check the name and HF_TOKEN"
        )
    except errors.RevisionNotFoundError:
        raise Absent(
            f"'{where}.revision': {model} has no revision '{params.revision}'; see its history"
        ) from None
    except errors.LocalEntryNotFoundError:
        kind = UserError
        reason = (
            "no folder, not complete in the cache, and the Hub cannot be reached; "
            "check its name or the network"
        )
    except Exception as e:  # errors of the Hub's client, the network or the disk
        kind = UserError
        reason = f"{doing} it ended with {type(e).__name__}; run again to continue"
    raise kind(f"'{where}.model': {model}: {reason}") from None


def _check_weights(where: str, found: Origin) -> None:
    from safetensors import SafetensorError, safe_open

    folder = found.folder
    weights = sorted(folder.rglob(WEIGHTS))
    safe = {path.parent for path in weights}
    # pickle next to safetensors is never loaded; a folder with only pickle files would be
    if pickles := [
        p for p in found.files() if p.suffix.lower() in PICKLES and p.parent not in safe
    ]:
        name = pickles[0].relative_to(folder)
        raise UserError(f"{where}: {name} is pickle, which can run code; save it as safetensors")
    if not weights:
        raise UserError(
            f"{where}: no weights in safetensors, the only format that is read; get it again"
        )
    for index in sorted(folder.rglob(f"{WEIGHTS}.index.json")):
        parts = read_model_json(where, index).get("weight_map", {})
        for part in sorted(set(map(str, parts.values()))):
            if index.parent / part not in weights:
                raise UserError(f"{where}: {part} is missing; get the model again")
    for path in weights:
        try:
            with safe_open(path, "np"):
                pass
        except (SafetensorError, OSError):
            raise UserError(
                f"{where}: {path.relative_to(folder)} is cut short or damaged; get it again"
            ) from None
