"""What an Idempotency-Key was used for. Called inside the transaction that does what the key asks for."""

from __future__ import annotations

import apsw

from dormice.domain.execution import Micros
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.sqlite import statements

_SQL = statements.load("idempotency.sql")

PRUNE_LIMIT = 250


def find(db: apsw.Connection, claim: IdempotencyClaim | None) -> Replayed | KeyReused | None:
    """Return the answer that an earlier use of the key demands, None when the key is free."""
    if claim is None:
        return None
    row = db.execute(_SQL["find"], (claim.scope, claim.key, claim.now)).get
    if row is None:
        return None
    request_hash, resource_id = row
    return Replayed(resource_id) if request_hash == claim.request_hash else KeyReused(request_hash, claim.request_hash)


def remember(db: apsw.Connection, claim: IdempotencyClaim | None, resource_id: str) -> None:
    """Record what the key was used for."""
    if claim is not None:
        values = (claim.scope, claim.key, claim.request_hash, resource_id, claim.keep_until)
        db.execute(_SQL["remember"], values)


def prune(db: apsw.Connection, now: Micros) -> int:
    """Forget at most PRUNE_LIMIT keys whose time is over; return how many."""
    db.execute(_SQL["prune"], (now, PRUNE_LIMIT))
    return db.changes()
