"""`alignrec serve`: serve the search page of a release on a local address."""

import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from alignrec.pipeline import io
from alignrec.pipeline.compare.page import stored_pictures
from alignrec.pipeline.config.base import Parameters
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.probe import stored
from alignrec.pipeline.release.read import Release, unpack_release
from alignrec.pipeline.report import page
from alignrec.pipeline.report.gallery import pick_neighbours
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.params import Report
from alignrec.pipeline.serve.app import CHARACTERS, Impatient, Nearest, build_application
from alignrec.pipeline.train.params import Released

LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")
HELD = 512  # open connections
SHUTDOWN = 2  # seconds to finish running requests on exit


def render_page(release: Release, params: Parameters, images: Path, encoders: list[str]) -> bytes:
    """Return the page as HTML, with the images in the folder whose hashes the release lists."""
    with unpack_release(release, ["items"]) as layout:
        if (probes := release.folder / "probes.json").exists():
            io.write_json(layout.probes, stored.read_probes(probes))
        outputs = Outputs(layout, release.manifest.kind, _preferred_set(release.feature_sets, params))
        near = pick_neighbours(outputs, params[Report].gallery_items, 0)
        at = {asin: row for row, asin in enumerate(release.items["asin"].to_pylist())}
        view = page.build_view(outputs, near, 0, stored_pictures(images, release.items, at))
        return page.page_html(outputs, view, encoders, CHARACTERS).encode()


def _preferred_set(names: Iterable[str], params: Parameters) -> str:
    wanted = params[Released].features
    return wanted if wanted in names else next(iter(names), wanted)


def serve(
    release: Release, params: Parameters, images: Path, host: str, port: int, say: Callable[[str], object]
) -> None:
    import uvicorn  # app.py was imported before: it names the extra if uvicorn is missing

    nearest = Nearest(release.refuse_without("items"))
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address, family=family)  # connections wait until uvicorn is ready
    except OSError as e:
        raise UserError(f"cannot listen at {host}, port {port}: {e.strerror or e}; name another by --port") from None
    with listening:
        nearest.load_encoder(_preferred_set(nearest.encoders, params))
        shown = _preferred_set(release.feature_sets, params)
        text = render_page(release, params, images, sorted(nearest.encoders, key=lambda name: name != shown))
        if host not in LOCAL:
            say(f"warning: {host} can be reached from other machines, and answers them")
        named = f"[{host}]" if ":" in host else host
        say(f"serving: http://{named}:{listening.getsockname()[1]}/ (Ctrl-C ends it)")
        hosts = [host, named, *LOCAL] if host not in ("0.0.0.0", "::") else ["*"]
        config = uvicorn.Config(
            build_application(nearest, text, hosts), log_level="warning", access_log=False, server_header=False,
            date_header=False, http=Impatient, ws="none", limit_concurrency=HELD,
            timeout_graceful_shutdown=SHUTDOWN, h11_max_incomplete_event_size=1 << 14,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])
