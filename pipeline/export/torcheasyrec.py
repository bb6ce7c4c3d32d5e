"""TorchEasyRec's tables of items: their vectors, and their codes as its own models would have predicted them.

Format: alibaba/TorchEasyRec, docs/source/models/sid_rqkmeans.md (`item_id`, `embedding`; output `codes`) and
tzrec/tools/sid/resolve_sid_collisions.py, which reads such codes.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export.codes import Codes, lists
from pipeline.export.content import ExportContent
from pipeline.export.text import write_mappings


def write(content: ExportContent, folder: Path) -> str:
    """Write codes/part-0.parquet and <feature set>/part-0.parquet; return how to read them."""
    codes = content.codes
    assert codes is not None
    ids = pa.array([str(i) for i in range(len(content.items))], pa.string())
    _write(folder / "codes", {"item_id": ids, "codes": lists(codes.matrix().astype(np.int64))})
    for features in content.features:
        _write(folder / features, {"item_id": ids, "embedding": lists(content.matrix(features).astype(np.float64))})
    write_mappings(folder, content.items, content.users)
    return _how(content, codes)


def _write(folder: Path, columns: dict[str, pa.Array]) -> None:
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "part-0.parquet")


def _how(content: ExportContent, codes: Codes) -> str:
    made, features = codes.facts, next(iter(content.features), "features")
    codebook = ",".join([str(made.codes)] * made.levels)
    return f"""`item_id` is our number as text; `items.tsv` gives the source's identifiers. `codes` is as
`tzrec.predict` writes it; items of equal codes are told apart by the second command. `{features}` is what its models of
semantic IDs train on, with `value_dim: {made.width}`. Its models of sequences take tables of your own: sequences are
not part of this export.

```bash
python -m tzrec.tools.sid.evaluate_sid_quality --input_path "codes/*.parquet" --codes_field codes \\
    --codebook {codebook} --summary_output summary --layer_stats_output levels
python -m tzrec.tools.sid.resolve_sid_collisions --input_path "codes/*.parquet" --strategy random \\
    --codebook {codebook} --max_items_per_codebook 5 --output_path resolved --generation v1
```
"""
