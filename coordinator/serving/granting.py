"""The office's part that speaks to replicas: what they may answer under."""

from __future__ import annotations

import time
from typing import Any

from coordinator.serving.desk import Desk
from coordinator.serving.leases import Grant
from coordinator.serving.lessor import Lessor


class Granting(Desk):
    """Grants leases, and holds an acknowledgement back until they say what is asked.

    Attributes:
        lessor: who may answer, under what.
        mask_lag_s: how long the last acknowledgement was held back.
    """

    lessor: Lessor
    mask_lag_s: float = 0.0

    def listen(self) -> None:
        """Take note of every change of the mask from now on, and of every new generation."""
        self.lessor = Lessor(self.system.erasing, policy=self.settings.serving_policy)
        engine = self.system.engine
        engine.mask_moved, engine.superseding = self.lessor.note, self.lessor.taken_over

    def lease(self, replica: str, generation: int | None, version: int) -> Grant:
        """See :meth:`Lessor.lease`."""
        return self.lessor.lease(replica, generation, version)

    def mask_of(self, generation: int) -> Grant:
        """See :meth:`Lessor.mask_of`."""
        return self.lessor.mask_of(generation)

    def replicas(self) -> list[dict[str, Any]]:
        """Replicas that hold a lease."""
        return self.lessor.replicas()

    def moved(self) -> None:
        """Something was asked or decided: wait until no replica reads it, and look for work.

        Raises:
            LeaseError: another process is the writer now; ask that one again.
        """
        started = time.monotonic()
        self.lessor.in_force()
        self.ledger.lease.require()  # else replicas may answer by another office's leases
        self.mask_lag_s = time.monotonic() - started
        super().moved()
