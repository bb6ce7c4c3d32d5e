"""Folders of data that publishers moved or mirror."""

from collections.abc import Iterable, Mapping, Sequence

SNAP = "https://snap.stanford.edu/data/amazon/productGraph"
LAB = "https://mcauleylab.ucsd.edu/public_datasets/data"
REPOSITORY = "https://datarepo.eng.ucsd.edu/mcauley_group/data"

# folders with the same files: an address below one of them is tried below the others, in order
SAME_FOLDERS: tuple[tuple[str, ...], ...] = (
    (
        SNAP,
        f"{LAB}/amazon",
        f"{REPOSITORY}/amazon",
    ),
    (
        f"{LAB}/amazon_v2",
        f"{REPOSITORY}/amazon_v2",
        "https://jmcauley.ucsd.edu/data/amazon_v2",
        "http://deepyeti.ucsd.edu/jianmo/amazon",
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2",
    ),
    (f"{LAB}/amazon_2023", f"{REPOSITORY}/amazon_2023"),
)


def list_mirrors(addresses: Iterable[str]) -> list[str]:
    """Return addresses, then those of the same files in folders where a publisher has them too."""
    given = list(addresses)
    mirrors = dict.fromkeys(given)
    for address in given:
        for folders in SAME_FOLDERS:
            inside = [folder for folder in folders if address.startswith(f"{folder}/")]
            for folder in folders if inside else ():
                mirrors[address.replace(inside[0], folder, 1)] = None
    return list(mirrors)


def with_mirrors(addresses: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return role -> addresses to try, with `list_mirrors` of each."""
    return {role: list_mirrors(mirrors) for role, mirrors in addresses.items()}
