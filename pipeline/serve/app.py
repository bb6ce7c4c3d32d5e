"""The web application: the page at /, and queries at /nearest; sizes, numbers and waiting times are bounded."""

import asyncio
import logging
from collections.abc import Sequence
from typing import cast

from pipeline.errors import UserError, installing, one_line
from pipeline.serve.nearest import BYTES, Nearest, Refused

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
HEADERS = 5.0  # seconds until a connection must have asked in full, from when it was made or last answered
ANSWER = 120.0  # seconds until it must have taken its answer
HELD = 64  # connections of all, see uvicorn's `limit_concurrency`
LOG = logging.getLogger("uvicorn.error")
OURS = "x-alignrec"
"""header of the page's own questions: another site's page cannot send it without asking first, and is not answered"""
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


def application(nearest: Nearest, page: bytes, hosts: Sequence[str]) -> Starlette:
    """Return the application, which shows `page` at /, for requests to one of `hosts`."""
    waiting = asyncio.Semaphore(WAITING)

    async def show(_: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=SAFE)

    async def ask(request: Request) -> Response:
        if OURS not in request.headers:
            return _refused("ask through the page", 403)
        name, text = (request.query_params.get(key, "") for key in ("encoder", "text"))
        try:
            async with asyncio.timeout(BODY):
                image = await _body(request)
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


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BYTES:
            raise Refused(f"the file is too large; {BYTES // 1_000_000} MB are taken")
    return bytes(body)


class Patient(H11Protocol):
    """HTTP with a deadline for requests and answers."""

    patience: asyncio.TimerHandle | None = None
    since = 0.0  # when it began to wait, on the loop's clock

    @property
    def asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait; with too many connections those that have not asked in full make way, the oldest first."""
        super().connection_made(transport)
        others = (cast(Patient, one) for one in self.connections if one is not self)
        idle = sorted((one for one in others if not one.asked or one.cycle.more_body), key=lambda one: one.since)
        for one in idle[: max(0, len(self.connections) - HELD + 1)]:
            one.give_up()
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.patience:
            self.patience.cancel()
        super().connection_lost(exc)

    def give_up(self) -> None:
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self) -> None:
        if self.patience:
            self.patience.cancel()
        self.since = self.loop.time()
        self.patience = self.loop.call_later(HEADERS, self._expire)

    def _expire(self) -> None:
        if self.asked and self.loop.time() - self.since < ANSWER:
            self.patience = self.loop.call_later(HEADERS, self._expire)
        else:
            self.give_up()
