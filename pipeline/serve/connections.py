"""Limits of a connection beyond uvicorn's."""

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS = 5.0  # seconds until a connection must have asked in full, from when it was made or last answered
ANSWER = 120.0  # seconds until it must have taken its answer
A_CLIENT = 16  # connections of one address; the oldest that has not asked in full makes way for another
HELD, AT_A_TIME = 64, 1 << 14
"""connections of all, see uvicorn's `limit_concurrency`, and bytes of an unfinished request's head"""


class Patient(H11Protocol):
    """HTTP with a deadline for requests and answers."""

    patience: asyncio.TimerHandle | None = None
    since = 0.0  # when it began to wait, on the loop's clock

    @property
    def asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def due(self) -> bool:
        return self.asked and not self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait; with too many connections those that have not asked make way, the oldest first."""
        super().connection_made(transport)
        others = sorted((cast(Patient, one) for one in self.connections if one is not self), key=lambda one: one.since)
        ours = [one for one in others if self.client and one.client and one.client[0] == self.client[0]]
        for several, most in ((ours, A_CLIENT), (others, HELD - 1)):
            idle = [one for one in several if not one.due]
            for one in idle[: max(0, len(several) + 1 - most)]:
                one.give_up()
        if len(ours) + 1 > A_CLIENT and all(one.due for one in ours):
            self.give_up()
            return
        self._wait(HEADERS)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait(HEADERS)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.patience:
            self.patience.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End a connection that is idle, or whose request is not there in full; others get their answers."""
        if self.asked and not self.due:
            self.give_up()
        else:
            super().shutdown()

    def give_up(self) -> None:
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self, seconds: float) -> None:
        if self.patience:
            self.patience.cancel()
        self.since = self.loop.time()
        self.patience = self.loop.call_later(seconds, self._expired)

    def _expired(self) -> None:
        if self.asked and self.loop.time() - self.since < ANSWER:
            self.patience = self.loop.call_later(HEADERS, self._expired)
        else:
            self.give_up()
