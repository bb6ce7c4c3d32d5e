"""The web application: the page at /, and queries at /nearest; sizes, numbers and waiting times are bounded."""

import asyncio
import logging
from collections.abc import Sequence

from alignrec.pipeline.errors import UserError, installing, one_line
from alignrec.pipeline.serve.nearest import BYTES, Nearest, Refused

try:
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

WAITING = 8  # questions that may wait for their turn; more are turned away. One waits when it is there in full
BODY = 15  # seconds until a question must be there
HEADERS = 5.0  # seconds until a connection must have sent its request; it has one, see SAFE
LOG = logging.getLogger("uvicorn.error")
OURS = "x-alignrec"
"""header of the page's own questions: another site's page cannot send it without asking first, and is not answered"""
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Connection": "close",
}


def application(nearest: Nearest, page: bytes, hosts: Sequence[str]) -> Starlette:
    waiting = asyncio.Semaphore(WAITING)

    async def show(_: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=SAFE)

    async def ask(request: Request) -> Response:
        if OURS not in request.headers:
            return _refused("ask through the page", 403)
        name, text = (request.query_params.get(key, "") for key in ("encoder", "text"))
        try:
            async with asyncio.timeout(BODY):
                image = await _read_body(request)
            if waiting.locked():
                return _refused("too many questions at a time; ask again", 503)
            async with waiting:
                found = await run_sync(nearest.ask, name, text, image, abandon_on_cancel=True)
        except Refused as e:
            return _refused(one_line(e), 400)
        except TimeoutError:
            return _refused(f"the question was not there after {BODY} seconds", 408)
        except ClientDisconnect:
            return Response(status_code=400)  # the client is gone
        except asyncio.CancelledError:
            return _refused("the server ends", 503)
        except Exception as e:  # the release was altered, weights are not installed: the server goes on, and says so
            why = one_line(e if isinstance(e, UserError) else f"{type(e).__name__}: {e}")
            LOG.error("%s", why)
            return _refused(why, 503)
        return JSONResponse({"items": found}, headers=SAFE)

    routes = [Route("/", show), Route("/nearest", ask, methods=["POST"])]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Starlette(routes=routes, middleware=[guard])


def _refused(why: str, status: int) -> JSONResponse:
    return JSONResponse({"error": why}, status, headers=SAFE)


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BYTES:
            raise Refused(f"the file is too large; {BYTES // 1_000_000} MB are taken")
    return bytes(body)


class Impatient(H11Protocol):
    """HTTP that closes a connection if no request has come within HEADERS seconds."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(HEADERS, self._close_idle)

    def _close_idle(self) -> None:
        if self.cycle is None:
            self.transport.abort()
