"""Which part is not ready, and why."""

from __future__ import annotations

from collections.abc import Mapping

from dormice.engine.gateway import Gateway
from dormice.store.interface import Store, StoreUnavailable

CHECK_EVERY_SECONDS = 1.0


class Health:
    """The last known state of the parts that requests need."""

    def __init__(self, *, store: Store, gateway: Gateway) -> None:
        self._store = store
        self._gateway = gateway
        self._store_problem = ""
        self.failing: set[str] = set()
        """Services whose last turn failed; they take it again."""

    def parts(self) -> Mapping[str, tuple[bool, str]]:
        """Return name -> (ready, detail)."""
        connected = self._gateway.connected
        return {
            "store": (not self._store_problem, self._store_problem),
            "node": (connected, "" if connected else "no node is connected: machines cannot run"),
            "services": (not self.failing, ", ".join(f"{name} fails" for name in sorted(self.failing))),
        }

    async def check(self) -> None:
        """Ask the store whether it can commit."""
        try:
            await self._store.check()
        except StoreUnavailable as problem:
            self._store_problem = str(problem) or "the store cannot commit"
        else:
            self._store_problem = ""
