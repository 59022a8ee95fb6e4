"""The statistical audit: does a submodel still hold what was erased, as far as one can tell?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.audit.report import AuditReport as AuditReport
    from coordinator.audit.report import Verdict as Verdict
    from coordinator.audit.run import audit_shard as audit_shard
    from coordinator.audit.run import audit_system as audit_system
    from coordinator.audit.settings import AuditSettings as AuditSettings

_HOMES = {
    "AuditReport": "coordinator.audit.report",
    "AuditSettings": "coordinator.audit.settings",
    "Verdict": "coordinator.audit.report",
    "audit_shard": "coordinator.audit.run",
    "audit_system": "coordinator.audit.run",
}
__all__ = ["AuditReport", "AuditSettings", "Verdict", "audit_shard", "audit_system"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coordinator.audit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
