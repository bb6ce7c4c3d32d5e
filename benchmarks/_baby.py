"""The published split of Amazon Baby, which must be downloaded separately."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from alignrec.pipeline.dataset.split import Pairs, Split
from benchmarks import Absent

DATA = Path(os.environ.get("ALIGNREC_BABY", "../shared/data/baby_2014/baby.inter.gz"))


def read_interactions() -> pa.Table:
    """Read userID, itemID, rating, timestamp and x_label; raise Absent if the file is missing."""
    if not DATA.exists():
        raise Absent(
            f"{DATA} is not there; ALIGNREC_BABY=PATH names Baby's baby.inter in MMRec's format"
        )
    return pc.read_csv(DATA, parse_options=pc.ParseOptions(delimiter="\t"))


def published_split() -> Split:
    """Read the split; raise Absent if the file is missing."""
    table = read_interactions()
    users, items, label = (table[name].to_numpy() for name in ("userID", "itemID", "x_label"))
    order = np.lexsort((items, users))
    parts = [order[label[order] == kind] for kind in range(3)]
    train, valid, test = (
        Pairs(users[part].astype("i4"), items[part].astype("i4")) for part in parts
    )
    return Split(int(users.max()) + 1, int(items.max()) + 1, train, valid, test)
