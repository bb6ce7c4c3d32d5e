"""`alignrec features`: the feature sets of a dataset, and the choice of the best."""

from typing import Any

import schemas
from pipeline import io
from pipeline.config.parameters import Parameters
from pipeline.encode.params import Encode
from pipeline.errors import UserError
from pipeline.facts import probes as facts
from pipeline.facts.table import Table
from pipeline.features import registry
from pipeline.layout import Layout

BEST = "best"  # what a set is called that valid chooses, where the parameters have none


def choosing(params: Parameters, dataset: str, seconds: int | None) -> tuple[Parameters, str]:
    """Return the parameters with a set of kind `chosen`, and its name; None seconds keep its own budget."""
    encode = params[Encode]
    name = next((one for one in encode.encoders if registry.kind(params.encoders, one) == registry.CHOSEN), BEST)
    given: dict[str, Any] = {"kind": registry.CHOSEN, **params.encoders.get(name, {})}
    entry = given if seconds is None else given | {"seconds": seconds}
    listed = [*encode.encoders, *([] if name in encode.encoders else [name])]
    chosen = params.having(encode.model_copy(update={"encoders": listed}))
    return chosen.model_copy(update={"encoders": {**params.encoders, name: entry}}), name


def sets(layout: Layout) -> Table:
    if not (names := layout.feature_sets()):
        raise UserError(f"{layout.folder('encode')} has no feature set; run `alignrec encode {layout.dataset}`")
    rows = []
    for name in names:
        of = io.record(io.shards(layout.features(name), "features")[0]).get("params", {}).get("of", [])
        width = str(io.width(layout.features(name)))
        rows.append([name, width, ", ".join(of if isinstance(of, list) else [of])])
    return Table("Feature sets", "", ["feature set", "width", "made of"], rows)


def tried(layout: Layout, name: str) -> Table:
    return facts.tried_table(name, io.read_table(layout.tried(name), schemas.TRIED).to_pylist())
