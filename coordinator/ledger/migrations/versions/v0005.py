"""The serving policy of a request; requests of earlier releases have that of the service."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column."""
    op.add_column("requests", sa.Column("serving_policy", sa.Text))
