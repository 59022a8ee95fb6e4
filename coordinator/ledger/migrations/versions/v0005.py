"""Serving policy and acceptance receipt of a request.

Requests of earlier releases have the policy of the service, and no receipt.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns."""
    for name in ("serving_policy", "acceptance"):
        op.add_column("requests", sa.Column(name, sa.Text))
