"""Limits of a connection beyond uvicorn's."""

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS = 5.0  # seconds until a connection must have asked in full, from when it was made or last answered
ANSWER = 120.0  # seconds until it must have taken its answer
HELD, AT_A_TIME = 64, 1 << 14
"""connections of all, see uvicorn's `limit_concurrency`, and bytes of an unfinished request's head"""


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
        self._wait(HEADERS)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait(HEADERS)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.patience:
            self.patience.cancel()
        super().connection_lost(exc)

    def give_up(self) -> None:
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self, seconds: float) -> None:
        if self.patience:
            self.patience.cancel()
        self.since = self.loop.time()
        self.patience = self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        if self.asked and self.loop.time() - self.since < ANSWER:
            self.patience = self.loop.call_later(HEADERS, self._expire)
        else:
            self.give_up()
