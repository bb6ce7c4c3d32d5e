"""`alignrec serve`: a release's page at /, and searches at /nearest (I items, F width)."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.images.decode import normalise_image
from alignrec.pipeline.io.errors import UserError, installing, one_line
from alignrec.pipeline.linalg.nearest import find_nearest
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.release.encoder import ReleasedEncoders, encode_items
from alignrec.pipeline.release.item_images import find_image
from alignrec.pipeline.release.loading import Loaded
from alignrec.pipeline.release.read import Release, refuse_damaged, unpack_release
from alignrec.pipeline.report.gallery import (
    CELL,
    JPEG_QUALITY,
    category_paths,
    item_titles,
    make_thumbnails,
    pick_neighbours,
    stored_pictures,
)
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.page import GalleryView, render_index

try:
    import uvicorn
    from anyio.to_thread import run_sync
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as e:
    raise UserError(f"alignrec serve needs another package ({e}): {installing('serve')}") from None

MAX_CHARACTERS = 2000  # of a text
MAX_IMAGE_BYTES = 10_000_000
MAX_PIXELS = 40_000_000  # of a decoded image
MAX_ANSWER_ITEMS = 12
MAX_PICTURED = 3_000  # items of catalogues of which the page has every image
SHOWN_ITEMS = 24  # of the gallery
MAX_WAITING = 8  # complete queries; further ones are refused
MAX_CONNECTIONS = 512
MAX_EVENT_BYTES = 1 << 14  # of an incomplete HTTP event
BODY_SECONDS = 15  # within which a request body must arrive
HEADER_SECONDS = 5.0  # within which a connection must send its only request, see SAFE_HEADERS
SHUTDOWN_SECONDS = 2  # to finish running requests on exit
IMAGE_LIMIT = f"{MAX_IMAGE_BYTES // 1_000_000} MB are taken"
LOG = logging.getLogger("uvicorn.error")
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]")
# header of the page's own requests; other sites cannot send it without a CORS preflight, which
# fails
PAGE_HEADER = "x-alignrec"
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Connection": "close",
}


class Refused(Exception):
    """A query that cannot be answered; the message is shown to the user."""


class SearchIndex(NamedTuple):
    """An encoder, and the vectors of the items that it is compared with."""

    encoder: Loaded
    items: np.ndarray  # int64 [n], those whose vector is not zero
    units: np.ndarray  # float32 [n, F]


class Nearest:
    """Nearest-neighbour search, one query at a time, which bounds memory."""

    def __init__(self, release: Release) -> None:
        self.encoders = ReleasedEncoders(release.folder).names
        if not self.encoders:
            raise UserError(
                f"{release.folder}: no encoder in this release, so nothing can be asked; "
                "publish one with it"
            )
        self._release = release
        self._titles = item_titles(release.items)
        self._paths = category_paths(release.items)
        self._loaded: dict[str, SearchIndex] = {}
        self._lock = threading.Lock()

    def load_encoder(self, name: str) -> SearchIndex:
        if name not in self._loaded:
            release = self._release
            files = release.manifest.files
            needed = [file for file in files if file.feature_set == name or name in file.used_by]
            # files may have changed since the server verified them
            refuse_damaged(release.folder, needed)
            units, directed = unit_rows(io.matrix(release.features(name)["vector"]))
            items = np.flatnonzero(directed)
            encoder = ReleasedEncoders(release.folder).load(name)
            self._loaded[name] = SearchIndex(encoder, items, units[items])
        return self._loaded[name]

    def search(self, name: str, text: str, image: bytes) -> list[dict[str, Any]]:
        """Return the items nearest to untrusted text and image; raises Refused."""
        if name not in self.encoders:
            raise Refused(f"no encoder of that name; there are {', '.join(self.encoders)}")
        if len(text) > MAX_CHARACTERS or len(image) > MAX_IMAGE_BYTES:
            raise Refused(f"too much: {MAX_CHARACTERS:,} characters and {IMAGE_LIMIT}")

        text = text.strip().encode(errors="replace").decode()
        with self._lock:
            index = self.load_encoder(name)
            vector = _encode_query(name, index.encoder, text, image)
        if not len(index.items):
            return []

        (nearest,) = find_nearest(vector[None], index.units, MAX_ANSWER_ITEMS)
        cosines = index.units[nearest] @ vector
        items = index.items[nearest].tolist()
        return [self._describe_item(*pair) for pair in zip(items, cosines.tolist(), strict=True)]

    def _describe_item(self, row: int, cosine: float) -> dict[str, Any]:
        return {
            "item": row,
            "title": self._titles[row],
            "category": self._paths[row],
            "cosine": round(cosine, 4),
        }


def _encode_query(name: str, encoder: Loaded, text: str, image: bytes) -> np.ndarray:
    """Return the unit vector of a query, float32 [F]; raises Refused if it has none."""
    reads = encoder.facts.reads
    if not (text and "text" in reads) and not (image and "image" in reads):
        raise Refused(f"{name} reads {' and '.join(reads)}: give one of these")

    picture = _decode_image(encoder, image) if image else None
    units, directed = unit_rows(encode_items(encoder, [text], [picture]))
    if not directed[0]:
        raise Refused(f"{name} finds nothing to go by in this; try other words, or another encoder")
    return units[0]


def _decode_image(encoder: Loaded, image: bytes) -> bytes:
    facts = encoder.facts
    decoded = normalise_image(image, facts.image_size, facts.image_quality, MAX_PIXELS)
    if decoded.image is None:
        status = decoded.status.replace("_", " ")
        raise Refused(f"this image cannot be used: {status}; {decoded.reason}")
    return decoded.image


def build_application(nearest: Nearest, page: bytes, hosts: Sequence[str]) -> Starlette:
    waiting = asyncio.Semaphore(MAX_WAITING)

    async def show_page(_: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=SAFE_HEADERS)

    async def answer_question(request: Request) -> Response:
        if PAGE_HEADER not in request.headers:
            return _refusal("ask through the page", 403)
        name = request.query_params.get("encoder", "")
        text = request.query_params.get("text", "")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                image = await _read_image(request)
            if waiting.locked():
                return _refusal("too many questions at a time; ask again", 503)
            async with waiting:
                search = nearest.search
                items = await run_sync(search, name, text, image, abandon_on_cancel=True)
        except Refused as e:
            return _refusal(one_line(e), 400)
        except TimeoutError:
            return _refusal(f"the question was not there after {BODY_SECONDS} seconds", 408)
        except ClientDisconnect:
            return Response(status_code=400)  # the client has disconnected
        except asyncio.CancelledError:
            return _refusal("the server ends", 503)
        except Exception as e:  # such as a damaged release or missing weights: keep serving
            why = one_line(e if isinstance(e, UserError) else f"{type(e).__name__}: {e}")
            LOG.error("%s", why)
            return _refusal(why, 503)
        return JSONResponse({"items": items}, headers=SAFE_HEADERS)

    routes = [Route("/", show_page), Route("/nearest", answer_question, methods=["POST"])]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Starlette(routes=routes, middleware=[guard])


async def _read_image(request: Request) -> bytes:
    image = bytearray()
    async for part in request.stream():
        image += part
        if len(image) > MAX_IMAGE_BYTES:
            raise Refused(f"the file is too large; {IMAGE_LIMIT}")
    return bytes(image)


def _refusal(why: str, status: int) -> JSONResponse:
    return JSONResponse({"error": why}, status, headers=SAFE_HEADERS)


class IdleTimeoutProtocol(H11Protocol):
    """HTTP protocol that closes connections without a request within HEADER_SECONDS."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(HEADER_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        if self.cycle is None:
            self.transport.abort()


def read_pictures(folder: Path, items: pa.Table, rows: Iterable[int]) -> Iterator[pa.Table]:
    """Yield `item_id` and `image` of items: stored images of a project, or files named after them.

    UserError if no item has a file.
    """
    asins = items["asin"].to_pylist()
    if any(folder.glob("images-*.parquet")):
        yield from stored_pictures(folder, items, {asin: row for row, asin in enumerate(asins)})
        return

    found = 0
    for row in rows:
        data = find_image(asins[row], folder).read(MAX_IMAGE_BYTES)
        decoded = None
        if data is not None:
            decoded = normalise_image(data, CELL, JPEG_QUALITY, MAX_PIXELS).image
        if decoded is not None:
            found += 1
            yield pa.table({"item_id": [row], "image": [decoded]})
    if not found:
        raise UserError(
            f"--images {folder}: no image of an item shown; "
            "give files named after items, or a project's outputs/images/NAME"
        )


def render_page(release: Release, features: str, images: Path | None, encoders: list[str]) -> bytes:
    """Return the page as HTML: a feature set, and some items with images of a folder."""
    with unpack_release(release, ["items"], whole=True) as layout:
        outputs = Outputs(layout, release.manifest.kind, features)
        near = pick_neighbours(outputs, SHOWN_ITEMS, 0)
        view = None
        if near is not None:
            shown = near.shown
            if len(release.items) <= MAX_PICTURED:
                shown = set(range(len(release.items)))
            pictures: Iterable[pa.Table] = ()
            if images is not None:
                pictures = read_pictures(images, release.items, sorted(shown))
            thumbnails = make_thumbnails(pictures, shown)
            titles = item_titles(release.items)
            view = GalleryView(titles, category_paths(release.items), thumbnails, near)
        return render_index(outputs, view, encoders=encoders, characters=MAX_CHARACTERS).encode()


def serve(
    release: Release,
    images: Path | None,
    host: str,
    port: int,
    say: Callable[[str], object],
) -> None:
    """Serve a release until interrupted; the page has its first feature set with an encoder.

    Only requests to `host` and to names of this machine for itself are answered, as other names
    may come from DNS rebinding.
    """
    nearest = Nearest(release.refuse_without("items"))
    with _listen(host, port) as listening:
        features = nearest.encoders[0]
        nearest.load_encoder(features)
        page = render_page(release, features, images, nearest.encoders)

        if host not in LOCAL_HOSTS:
            say(f"warning: {host} can be reached from other machines, and answers them")
        name = f"[{host}]" if ":" in host else host
        say(f"serving: http://{name}:{listening.getsockname()[1]}/ (Ctrl-C ends it)")

        application = build_application(nearest, page, [name, *LOCAL_HOSTS])
        uvicorn.Server(_server_config(application)).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Open the socket, so that connections wait until uvicorn is ready."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as e:
        raise UserError(
            f"cannot listen at {host}, port {port}: {e.strerror or e}; name another by --port"
        ) from None


def _server_config(application: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        http=IdleTimeoutProtocol,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        h11_max_incomplete_event_size=MAX_EVENT_BYTES,
    )
