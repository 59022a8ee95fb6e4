"""Set, before torch is imported, what a worker needs; and let no test of an extra skip unseen."""

from __future__ import annotations

import os
import platform
import sys

import pytest

from shards.config import ShardsConfig
from shards.recipe import choose_profile, worker_environment

os.environ.update(worker_environment(choose_profile(ShardsConfig())))
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

EXTRAS = ("dgl", "metis")
OTHER_REASONS = ("folder is not", "digests were recorded")  # data or machine, not the extra
HAS_WHEELS = (sys.platform, platform.machine(), sys.version_info[:2]) == (
    "linux", "x86_64", (3, 11),
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a module's tests in one process, and all that start Ray in the same one."""
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run where DGL and METIS have wheels and one of their tests was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not HAS_WHEELS or reporter is None:
        return
    skipped = [
        report.nodeid
        for report in reporter.stats.get("skipped", [])
        if any(extra in f"{report.nodeid} {report.longrepr}".lower() for extra in EXTRAS)
        and not any(reason in str(report.longrepr) for reason in OTHER_REASONS)
    ]
    if skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"\nskipped tests of an extra that has wheels here: {skipped}")
