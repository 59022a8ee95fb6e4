"""PostgreSQL's planner samples no column that holds digests of what may be erased.

What it samples stays in ``pg_statistic`` when the row is gone. It never plans by these columns but
by a primary key, so nothing gets slower.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

COLUMNS = {"artefacts": "key", "generations": "body", "settings": "value"}


def upgrade() -> None:
    """Keep the columns out of the statistics; SQLite makes none."""
    if op.get_bind().dialect.name == "postgresql":
        for table, column in COLUMNS.items():
            op.execute(f'ALTER TABLE {table} ALTER COLUMN "{column}" SET STATISTICS 0')
