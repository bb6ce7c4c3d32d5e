"""Names of settings, models and commands that were removed, with what to use instead."""

INSTEAD = {
    "align": "an encoder of kind 'released' keeps the space of a release: docs/growing.md",
}


def name_replacement(name: str) -> str:
    """Return a hint for a removed name; empty for all others."""
    return f"; it was removed: {INSTEAD[name]}" if name in INSTEAD else ""
