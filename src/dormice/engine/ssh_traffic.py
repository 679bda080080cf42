"""What passes through the SSH server, in plain numbers: whoever shows them reads them here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SshTraffic:
    """Connections that there are, and everything else since the server began. Used on the event loop's thread only."""

    logging_in: int = 0
    """Connections that have been let in to try."""
    logged_in: int = 0
    """Connections whose client holds a session."""
    accepted: int = 0
    """Logins."""
    failed: int = 0
    """Connections that ended without a login."""
    refused: int = 0
    """Connections that were not let in to try."""
    received_bytes: int = 0
    """From clients, on all that they have opened; without what SSH itself adds."""
    sent_bytes: int = 0
    """To clients."""
    created_sessions: int = 0

    @property
    def connections(self) -> int:
        """How many there are."""
        return self.logging_in + self.logged_in
