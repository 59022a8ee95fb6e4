"""Schema revisions of the ledger, as Alembic scripts that travel in the wheel."""
