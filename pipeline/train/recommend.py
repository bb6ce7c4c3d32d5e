"""Top-K recommendations of one user: the command `alignrec recommend`."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.table import Table
from rich.text import Text

import schemas
from pipeline import io
from pipeline.errors import UserError, printable
from pipeline.interactions import split
from pipeline.interactions.split import Split
from pipeline.layout import Layout
from pipeline.sources.product import is_path
from pipeline.train import embeddings, retrieval

HISTORY = 5  # train items listed


@dataclass(frozen=True)
class Item:
    """One item, as it is printed."""

    item_id: int
    asin: str
    title: str
    image: str  # address or path; empty where there is none
    score: float | None = None  # dot product with the user's vector; None where the order is not the recommender's


@dataclass(frozen=True)
class Recommendations:
    """The top K of one user, and the train items behind it."""

    user_id: int
    user: str  # the user's identifier at the source
    trained: list[Item]  # the user's train items, last item_id first
    top: list[Item]  # best first; fewer than K where the catalogue has no more
    popular: bool  # the user has no train items, so these are the items that most users have


def recommend(layout: Layout, user: str | int, k: int) -> Recommendations:
    """Return the top K of one user by the trained vectors, train items masked.

    The ranking is exact at any size of the catalogue: one user takes milliseconds.

    Args:
        user: identifier at the source; or a row, the dense number.

    Raises:
        UserError: no such user, K larger than the catalogue, or train has not run.
    """
    users = io.read_table(layout.users, schemas.USERS)
    ids = io.read_table(layout.item_ids, schemas.ITEM_IDS)
    number = find(users["user"], user)
    parts = split.load(io.read_table(layout.interactions, schemas.INTERACTIONS), len(users), len(ids))
    own = parts.train.items[parts.train.users == number]
    if k > len(ids):
        raise UserError(f"{k} items wanted, and the catalogue has {len(ids)}; ask for fewer")
    if len(own):
        ids_ranked, scores = _ranked(layout, parts, number, k)
        ranked = list(zip(ids_ranked.tolist(), scores.tolist(), strict=True))
    else:
        counts = np.bincount(parts.train.items, minlength=parts.n_items)  # the most popular, ties in item order
        ranked = [(int(i), None) for i in np.argsort(-counts, kind="stable")[:k]]
    titles, images = _titles(layout, len(ids)), _images(layout, len(ids))

    def item(i: int, score: float | None = None) -> Item:
        return Item(i, ids["asin"][i].as_py(), titles[i].as_py(), local_address(layout, images[i].as_py()), score)

    trained = [item(int(i)) for i in own[::-1]]
    return Recommendations(
        number, users["user"][number].as_py(), trained, [item(*pair) for pair in ranked], not len(own)
    )


def find(names: pa.ChunkedArray, user: str | int) -> int:
    """Return the row of a user by identifier (also a number in text), or by row; UserError suggests a similar one."""
    if isinstance(user, int):
        if 0 <= user < len(names):
            return user
        raise UserError(f"no row {user}; users are in rows 0 .. {len(names) - 1}")
    at = pc.index(names, user).as_py()
    if at >= 0:
        return int(at)
    if user.isdecimal() and len(user) < 20 and int(user) < len(names):
        raise UserError(
            f"no user '{user}'; row {int(user)} is user '{names[int(user)]}'; did you mean --row {int(user)}?"
        )
    # comparing with every one of a million names takes seconds; mistakes are rarely at both ends
    ends = pc.or_(pc.starts_with(names, user[:2]), pc.ends_with(names, user[-2:]))
    similar = difflib.get_close_matches(user, names.filter(ends).to_pylist(), n=1)
    hint = f"did you mean '{similar[0]}'?" if similar else f"users are in rows 0 .. {len(names) - 1}, which --row takes"
    raise UserError(f"no user '{user}'; {hint}")


def history(recommended: Recommendations) -> str:
    """Return a line on the user's train items."""
    name = f"user {recommended.user} (row {recommended.user_id})"
    if recommended.popular:
        return f"{name} has no train items; what follows is most popular"
    titles = [item.title or item.asin for item in recommended.trained]
    more = f" and {len(titles) - HISTORY} more" if len(titles) > HISTORY else ""
    return f"{name} has {len(titles)} train items: {', '.join(titles[:HISTORY])}{more}"


def table(recommended: Recommendations) -> Table:
    """Return the recommended items for a terminal; the folder that all images share stands below."""
    folders = {item.image.rpartition("/")[0] for item in recommended.top if item.image}
    shared = folders.pop() if len(folders) == 1 else ""
    caption = Text(f"images in {printable(shared)}") if shared else None
    printed = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, caption=caption, caption_justify="left")
    for figure in ("", "score"):
        printed.add_column(figure, justify="right")
    for words in ("asin", "title", "image"):
        printed.add_column(words, overflow="fold")
    for rank, item in enumerate(recommended.top, start=1):
        score = "" if item.score is None else f"{item.score:.3f}"
        image = item.image.removeprefix(f"{shared}/")
        printed.add_row(str(rank), score, *(Text(printable(cell)) for cell in (item.asin, item.title, image)))
    return printed


def _ranked(layout: Layout, parts: Split, number: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    user, item = (vectors.read() for vectors in embeddings.of(layout))
    if (len(user), len(item)) != (parts.n_users, parts.n_items):
        raise UserError(
            f"{layout.folder('train')}: vectors of {len(user)} users and {len(item)} items, the dataset has "
            f"{parts.n_users} and {parts.n_items}; run `alignrec train {layout.dataset}` again"
        )
    ids, scores = retrieval.retrieve(retrieval.flat(item), user, np.array([number]), k, parts.train)
    return ids[0][ids[0] >= 0], scores[0][ids[0] >= 0]


def _titles(layout: Layout, n: int) -> pa.ChunkedArray:
    if not layout.items.exists():
        return pa.chunked_array([[""] * n], pa.string())
    return io.read_table(layout.items, schemas.ITEMS, ["title"])["title"]


def _images(layout: Layout, n: int) -> pa.ChunkedArray:
    """Return each item's image address: of the fetched image, or where none was fetched, of the metadata."""
    if any(layout.images.glob("images-*.parquet")):
        tables = [io.read_table(p, schemas.IMAGES, ["status", "url"]) for p in io.shards(layout.images, "images")]
        images = pa.concat_tables(tables)
        return pc.if_else(pc.equal(images["status"], "ok"), images["url"], "")
    if not layout.items.exists():
        return pa.chunked_array([[""] * n], pa.string())
    urls = io.read_table(layout.items, schemas.ITEMS, ["image_urls"])["image_urls"]
    return pa.chunked_array([[u[0] if u else "" for u in urls.to_pylist()]], pa.string())


def local_address(layout: Layout, address: str) -> str:
    """Return the path of an image that is a file of this machine; other addresses as they are."""
    if not is_path(address) or not address:
        return address
    cost = layout.cost("images")
    start = io.read_json(cost)["measured"].get("folder") if cost.exists() else None
    try:
        path = unquote(urlsplit(address).path) if address[:5].lower() == "file:" else address
    except ValueError:  # such as file://[
        return address
    return str(Path(start or layout.raw) / path)
