"""Where the time of a piece of work went: wall and CPU seconds by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Seconds by stage; CPU seconds are this process's plus what workers report."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block and add it to a stage."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
            self.add_cpu(name, time.process_time() - cpu)

    def add_cpu(self, name: str, seconds: float) -> None:
        """Add CPU seconds that a worker spent."""
        self.cpu[name] = self.cpu.get(name, 0.0) + seconds

    @property
    def seconds(self) -> float:
        """Wall seconds over all stages."""
        return sum(self.wall.values())

    def plus(self, other: Stopwatch) -> Stopwatch:
        """This and another, stage by stage."""
        total = Stopwatch(dict(self.wall), dict(self.cpu))
        for name, seconds in other.wall.items():
            total.wall[name] = total.wall.get(name, 0.0) + seconds
            total.add_cpu(name, other.cpu.get(name, 0.0))
        return total

    def to_json(self) -> dict[str, dict[str, float]]:
        """Stage -> wall and CPU seconds."""
        return {
            name: {"seconds": round(self.wall[name], 4), "cpu_seconds": round(self.cpu[name], 4)}
            for name in self.wall
        }
