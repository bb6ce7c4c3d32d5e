"""Names of settings, models and commands that were removed, with what to use instead."""

FIRST_IMAGE = "an item has one image, the first that can be had"
A_FOLDER = "a release is a folder, fetched whole or by feature set (--encoder)"
CEILINGS = "experiments/ceilings.py measures how far features get to it"
L3AE = "l3ae reads interactions and features"
RELEASED = "an encoder of kind 'released' keeps the space of a release: docs/growing.md"
INSTEAD = {
    "addease": L3AE,
    "atlas": "pandas writes the table that embedding-atlas reads: docs/exports.md",
    "align": RELEASED,
    "cease": L3AE,
    "fitted": RELEASED,
    "from": RELEASED,
    "hf": "'publish --to hf://...', or pandas: docs/exports.md",
    "ials": "ease and itemknn read interactions",
    "images-per-item": FIRST_IMAGE,
    "minionerec": "items by their codes, in four lines: docs/semantic-ids.md",
    "leaked": CEILINGS,
    "mapped": "experiments/mapped.py maps features to train interactions",
    "most": FIRST_IMAGE,
    "onto": A_FOLDER,
    "part": "`engine: ray` spreads encode, beit3 and graph over a cluster: docs/cluster.md",
    "planted": CEILINGS,
    "since": A_FOLDER,
    "start": RELEASED,
}


def name_replacement(name: str) -> str:
    """Return a hint for a removed name; empty for all others."""
    return f"; it was removed: {INSTEAD[name]}" if name in INSTEAD else ""
