"""The error tree: one root, few leaves, each with a stable code and a hint on what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def shorten(items: Sequence[Any], limit: int = 10) -> str:
    """Join up to ``limit`` items and say how many more there are."""
    text = ", ".join(repr(item) for item in items[:limit])
    return text if len(items) <= limit else f"{text} (+{len(items) - limit} more)"


class UnweaveError(Exception):
    """Root of every error a caller can act on; ``exit_code`` is what the command line returns."""

    code = "UW-0000"
    exit_code = 1


class ConfigError(UnweaveError):
    """A configuration value is missing, unknown, or does not fit the others."""

    code = "UW-C001"
    exit_code = 3


class GraphError(UnweaveError):
    """The graph data breaks a rule (duplicate ids, dangling edges, bad values)."""

    code = "UW-G001"
    exit_code = 4


class UnknownIdError(GraphError):
    """Ids that the graph does not hold; all of them are in ``ids``."""

    code = "UW-G002"

    def __init__(self, ids: Sequence[Any], graph: str, kind: str = "node") -> None:
        super().__init__(tuple(ids), graph, kind)
        self.ids, self.graph, self.kind = tuple(ids), graph, kind

    def __str__(self) -> str:
        return (
            f"{len(self.ids)} {self.kind}(s) are not in {self.graph}: {shorten(self.ids)}; "
            "check the ids and their type, or pass unknown='report' to skip and list them"
        )


class CapacityError(UnweaveError):
    """The shards cannot hold the nodes, or the cluster cannot hold the shards."""

    code = "UW-R001"
    exit_code = 5


class HomeError(UnweaveError):
    """The home is missing, locked, holds a system already, or belongs to another graph."""

    code = "UW-H001"
    exit_code = 3


class CorruptArtefactError(UnweaveError):
    """A stored artefact is missing or its tensors do not have the recorded digest."""

    code = "UW-A001"
    exit_code = 7

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"artefact {self.path} {self.reason}; `unweave verify --repair` makes again what "
            "follows from the graph, System.open(home, graph=source) restores the graph itself"
        )


class StalePlanError(UnweaveError):
    """A plan was made for an earlier state of the graph, or for another system."""

    code = "UW-E009"
    exit_code = 2

    def __init__(self, plan_epoch: int, graph_epoch: int) -> None:
        super().__init__(plan_epoch, graph_epoch)
        self.plan_epoch, self.graph_epoch = plan_epoch, graph_epoch

    def __str__(self) -> str:
        return (
            f"the plan was made at graph epoch {self.plan_epoch} of a generation that is not "
            f"published here (this graph is at epoch {self.graph_epoch}); nothing was changed, "
            "make a new plan"
        )


class NumericsError(UnweaveError):
    """A worker cannot reproduce the published numerics profile, so it refuses to build."""

    code = "UW-N001"
    exit_code = 5


class ErasureError(UnweaveError):
    """An accepted erasure could not be finished; it stays accepted and will be resumed."""

    code = "UW-E001"


class RequestError(UnweaveError):
    """A request cannot be taken, or not be changed in the way that was asked."""

    code = "UW-E010"
    exit_code = 2


class TransitionError(RequestError):
    """A request's state does not allow this action, or not any more."""

    code = "UW-E011"


class ApprovalError(RequestError):
    """Who asked for an erasure cannot be the one who approves it (four eyes)."""

    code = "UW-E012"


class HoldError(RequestError):
    """A hold does not allow this, or cannot be set or ended in the state the request is in."""

    code = "UW-E013"


class DuplicateError(RequestError):
    """An idempotency key was used before, with another body."""

    code = "UW-E014"


class NotFoundError(RequestError):
    """There is no request, plan, certificate, shard or key of that id here."""

    code = "UW-E015"

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what, self.hint = what, hint

    def __str__(self) -> str:
        return f"there is no {self.what} of that id here; {self.hint}"


class LeaseError(HomeError):
    """This process is no longer, or not yet, the one that may write to the home."""

    code = "UW-H002"


class GoneError(UnknownIdError):
    """Ids that were erased here, or are to be."""

    code = "UW-G003"

    def __str__(self) -> str:
        return f"{len(self.ids)} {self.kind}(s) were erased from {self.graph}: {shorten(self.ids)}"


class RearrivalError(GraphError):
    """Records that were erased here arrive again, and the policy is to refuse them."""

    code = "UW-G004"


class SelectorError(GraphError):
    """A subject, a predicate or a file of ids does not say which records it means."""

    code = "UW-G010"


class LineError(SelectorError):
    """A cell of a file of ids is not what it should be.

    Attributes:
        without_value: the message for those who are not to read the cell.
    """

    def __init__(self, place: str, value: object, wrong: str) -> None:
        self.without_value = f"{place}: a value {wrong}"
        super().__init__(f"{place}: {value!r} {wrong}")


class VerificationError(UnweaveError):
    """A piece of evidence is not what it claims to be."""

    code = "UW-V001"
    exit_code = 7


class NoLeaseError(UnweaveError):
    """A replica may not answer now: it holds no lease on the mask."""

    code = "UW-S001"


class StaleShardError(UnweaveError):
    """A node's shard is being retrained, and the policy says to wait."""

    code = "UW-S002"


class AccessError(UnweaveError):
    """A key or token is missing, wrong, over, or of another role."""

    code = "UW-S003"
