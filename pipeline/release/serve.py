"""`alignrec serve`: a release's page at /, and searches at /nearest with its own encoders (I items, F width)."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from alignrec.pipeline import io
from alignrec.pipeline.images.decode import normalise_image
from alignrec.pipeline.io.errors import UserError, installing, one_line
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.release import probes as stored_probes
from alignrec.pipeline.release.encoder import ReleasedEncoders, encode_items
from alignrec.pipeline.release.loading import Loaded
from alignrec.pipeline.release.read import Release, refuse_damaged, unpack_release
from alignrec.pipeline.report import page
from alignrec.pipeline.report.gallery import (
    category_paths,
    item_titles,
    pick_neighbours,
    stored_pictures,
)
from alignrec.pipeline.report.outputs import Outputs

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

# limits on text, image file and decoded image
CHARACTERS, BYTES, PIXELS = 2000, 10_000_000, 40_000_000
NEAREST = 12  # items per answer
WAITING = 8  # maximum complete queries that wait; further ones are refused
BODY = 15  # seconds within which a request body must arrive
HEADERS = 5.0  # seconds within which a connection must send its only request, see SAFE
LOG = logging.getLogger("uvicorn.error")
LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")
HELD = 512  # maximum open connections
SHUTDOWN = 2  # seconds to finish running requests on exit
# header of the page's own requests; other sites cannot send it without a CORS preflight, which fails
OURS = "x-alignrec"
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Connection": "close",
}


class Refused(Exception):
    """A query that cannot be answered; the message is shown to the user."""


class Nearest:
    """Nearest-neighbour search, one query at a time, which bounds memory."""

    def __init__(self, release: Release) -> None:
        self._release, self.encoders = release, ReleasedEncoders(release.folder).names
        if not self.encoders:
            why = "no encoder in this release, so nothing can be asked"
            raise UserError(f"{release.folder}: {why}; publish one with it")
        self._titles, self._paths = item_titles(release.items), category_paths(release.items)
        self._loaded: dict[str, tuple[Loaded, np.ndarray, np.ndarray]] = {}
        self._lock = threading.Lock()

    def load_encoder(self, name: str) -> tuple[Loaded, np.ndarray, np.ndarray]:
        """Return an encoder, unit vectors of the items, float32 [I, F], and which are not zero, bool [I]."""
        if name not in self._loaded:
            release = self._release
            needed = [
                f for f in release.manifest.files if f.feature_set == name or name in f.used_by
            ]
            refuse_damaged(
                release.folder, needed
            )  # files may have changed since the server verified them
            vectors = io.matrix(release.features(name)["vector"])
            self._loaded[name] = (ReleasedEncoders(release.folder).load(name), *unit_rows(vectors))
        return self._loaded[name]

    def search(self, name: str, text: str, image: bytes) -> list[dict[str, Any]]:
        """Return the items nearest to untrusted text and image; raises Refused."""
        if name not in self.encoders:
            raise Refused(f"no encoder of that name; there are {', '.join(self.encoders)}")
        if len(text) > CHARACTERS or len(image) > BYTES:
            raise Refused(
                f"too much: {CHARACTERS:,} characters and {BYTES // 1_000_000} MB are taken"
            )
        text = text.strip().encode(errors="replace").decode()
        with self._lock:
            loaded, units, directed = self.load_encoder(name)
            reads = loaded.facts.reads
            if not (text and "text" in reads) and not (image and "image" in reads):
                raise Refused(f"{name} reads {' and '.join(reads)}: give one of these")
            stored = None
            if image:
                decoded = normalise_image(
                    image, loaded.facts.image_size, loaded.facts.image_quality, PIXELS
                )
                if (stored := decoded.image) is None:
                    why = f"{decoded.status.replace('_', ' ')}; {decoded.reason}"
                    raise Refused(f"this image cannot be used: {why}")
            vector, has_direction = unit_rows(encode_items(loaded, [text], [stored]))
        if not has_direction[0]:
            raise Refused(
                f"{name} finds nothing to go by in this; try other words, or another encoder"
            )
        cosines = np.where(directed, units @ vector[0], -2.0)
        order = [int(i) for i in np.argsort(-cosines, kind="stable")[:NEAREST] if directed[i]]
        return [
            {
                "item": i,
                "title": self._titles[i],
                "category": self._paths[i],
                "cosine": round(float(cosines[i]), 4),
            }
            for i in order
        ]


def build_application(nearest: Nearest, page: bytes, hosts: Sequence[str]) -> Starlette:
    waiting = asyncio.Semaphore(WAITING)

    async def show_page(_: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=SAFE)

    async def answer_question(request: Request) -> Response:
        if OURS not in request.headers:
            return _refusal("ask through the page", 403)
        name, text = (request.query_params.get(key, "") for key in ("encoder", "text"))
        try:
            async with asyncio.timeout(BODY):
                image = bytearray()
                async for part in request.stream():
                    image += part
                    if len(image) > BYTES:
                        raise Refused(f"the file is too large; {BYTES // 1_000_000} MB are taken")
            if waiting.locked():
                return _refusal("too many questions at a time; ask again", 503)
            async with waiting:
                found = await run_sync(
                    nearest.search, name, text, bytes(image), abandon_on_cancel=True
                )
        except Refused as e:
            return _refusal(one_line(e), 400)
        except TimeoutError:
            return _refusal(f"the question was not there after {BODY} seconds", 408)
        except ClientDisconnect:
            return Response(status_code=400)  # the client has disconnected
        except asyncio.CancelledError:
            return _refusal("the server ends", 503)
        except (
            Exception
        ) as e:  # such as a damaged release or missing weights: report, and keep serving
            why = one_line(e if isinstance(e, UserError) else f"{type(e).__name__}: {e}")
            LOG.error("%s", why)
            return _refusal(why, 503)
        return JSONResponse({"items": found}, headers=SAFE)

    routes = [Route("/", show_page), Route("/nearest", answer_question, methods=["POST"])]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Starlette(routes=routes, middleware=[guard])


def _refusal(why: str, status: int) -> JSONResponse:
    return JSONResponse({"error": why}, status, headers=SAFE)


class IdleTimeoutProtocol(H11Protocol):
    """HTTP protocol that closes connections without a request within HEADERS seconds."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(HEADERS, self._close_idle)

    def _close_idle(self) -> None:
        if self.cycle is None:
            self.transport.abort()


def render_page(
    release: Release, released: str, shown: int, images: Path, encoders: list[str]
) -> bytes:
    """Return the page as HTML: feature set `released`, and `shown` items with those images that the release lists."""
    with unpack_release(release, ["items"]) as layout:
        if (probes := release.folder / "probes.json").exists():
            io.write_json(layout.probes, stored_probes.read_probes(probes))
        outputs = Outputs(layout, release.manifest.kind, released)
        near = pick_neighbours(outputs, shown, 0)
        at = {asin: row for row, asin in enumerate(release.items["asin"].to_pylist())}
        view = page.build_view(outputs, near, 0, stored_pictures(images, release.items, at))
        return page.render_index(outputs, view, encoders, CHARACTERS).encode()


def _own_hosts() -> list[str]:
    """Return the names and addresses of this machine; requests to other names may come from DNS rebinding."""
    names = [socket.gethostname(), socket.getfqdn()]
    for family, outside in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        # connecting a datagram socket sends nothing, but selects the address that others see
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((outside, 9))
            address = probe.getsockname()[0]
            names.append(f"[{address}]" if ":" in address else address)
    with suppress(OSError):
        names += [
            str(info[4][0])
            for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
        ]
    return list(dict.fromkeys(name for name in names if name not in LOCAL))


def serve(
    release: Release,
    preferred: str,
    shown: int,
    images: Path,
    host: str,
    port: int,
    say: Callable[[str], object],
) -> None:
    """Serve a release until interrupted, with feature set `preferred`, if present, and `shown` items first."""
    nearest = Nearest(release.refuse_without("items"))
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(
            address, family=family
        )  # connections wait until uvicorn is ready
    except OSError as e:
        raise UserError(
            f"cannot listen at {host}, port {port}: {e.strerror or e}; name another by --port"
        ) from None
    with listening:
        nearest.load_encoder(preferred if preferred in nearest.encoders else nearest.encoders[0])
        released = preferred if preferred in release.feature_sets else release.feature_sets[0]
        encoders = sorted(nearest.encoders, key=lambda name: name != released)
        text = render_page(release, released, shown, images, encoders)
        if host not in LOCAL:
            say(f"warning: {host} can be reached from other machines, and answers them")
        hosts = (
            _own_hosts() if host in ("0.0.0.0", "::") else [f"[{host}]" if ":" in host else host]
        )
        addresses = ", ".join(f"http://{name}:{listening.getsockname()[1]}/" for name in hosts)
        say(f"serving: {addresses} (Ctrl-C ends it)")
        application = build_application(nearest, text, [host, *hosts, *LOCAL])
        config = uvicorn.Config(
            application, log_level="warning", access_log=False, server_header=False,
            date_header=False, http=IdleTimeoutProtocol, ws="none", limit_concurrency=HELD,
            timeout_graceful_shutdown=SHUTDOWN, h11_max_incomplete_event_size=1 << 14,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])
