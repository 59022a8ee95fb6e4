"""What a System offers to whoever asks for something to be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from coordinator.ask import Ask, subject_ref
from coordinator.asking import Asking, Unknown
from coordinator.engine import Engine
from coordinator.erasing import Erasing
from coordinator.erasure import Erasure
from coordinator.handle import Request
from coordinator.requests.serving import ServingPolicy
from coordinator.results import Plan, Receipt
from coordinator.selectors.selector import Selector
from coordinator.selectors.subjects import subject_text

if TYPE_CHECKING:
    from coordinator.reconcile import Progress
    from coordinator.selectors.idfile import IdFile
    from coordinator.selectors.rules import SubjectRules
    from coordinator.selectors.subjects import SubjectMap

Priority = Literal["normal", "urgent", "regulator"]


class Forgetting:
    """The part of :class:`~coordinator.system.System` that takes requests.

    Attributes:
        engine: what the home holds.
        erasing: what was asked and where it stands.
    """

    engine: Engine
    erasing: Erasing

    # ---- people

    @property
    def subjects(self) -> SubjectMap | None:
        """Which nodes are whose; None where nobody is mapped."""
        return self.engine.people.map

    @property
    def subject_rules(self) -> SubjectRules | None:
        """What goes with a person beside the nodes the map names."""
        return self.engine.people.rules

    def set_subjects(self, subjects: SubjectMap, rules: SubjectRules | None) -> int:
        """Replace the subject map and the rules; plans made before are void.

        The map is kept in the home and rewritten whenever people or nodes of it are forgotten. Rows
        of nodes that are not here are left out, and so are people who were forgotten before, as
        ``erasure.rearrival`` says.

        Returns:
            How many rows were left out.

        Raises:
            SelectorError: the map is of another graph, or the rules leave a type open.
            GoneError: ``erasure.rearrival: block``, and people were forgotten before.
        """
        return self.erasing.set_subjects(subjects, rules)

    # ---- ask

    def plan(self, erasure: Selector | Iterable[Erasure], *, unknown: Unknown = "raise") -> Plan:
        """Say what an erasure would do; changes nothing.

        Args:
            erasure: records, several of them to be done as one, a ``Subject``, or a ``Where``.
            unknown: whether records or a person that were never here raise or are listed.

        Raises:
            UnknownIdError: a record is not in the graph and was not erased before.
            SelectorError: the predicate is wrong, nobody is mapped, or the cascade is too large.
        """
        return Asking(self.erasing).plan(erasure, unknown)

    def erase(
        self,
        erasure: Selector | Plan | Iterable[Erasure],
        *,
        unknown: Unknown = "raise",
        regulation: str | None = None,
        requested_by: str = "",
        approved_by: str = "",
        external_request_id: str | None = None,
        serving_policy: ServingPolicy | None = None,
    ) -> Receipt:
        """Forget records now: accept durably, retrain the readers, publish, purge, certify.

        Asking again for what was erased before returns the receipt of then. A request that failed
        half way is finished first.

        Args:
            erasure: as in :meth:`plan`, or a plan; a ``Where`` only as its plan.
            unknown: as in :meth:`plan`.
            regulation: profile of its deadlines, for the certificate.
            requested_by: who asks.
            approved_by: who approved it, where it is large; somebody else.
            external_request_id: the caller's own id, as in :meth:`submit`.
            serving_policy: as in :meth:`submit`.

        Raises:
            StalePlanError: the plan was made for an earlier graph epoch, or another system.
            UnknownIdError: as in :meth:`plan`.
            HoldError: a record is under a legal hold.
            ApprovalError: it is large, and nobody else approved it.
            RequestError: a ``Where`` without its plan.
        """
        self.erasing.settle()
        plan = Asking(self.erasing).planned(erasure, unknown)
        return self.erasing.erase(
            Ask(
                plan,
                regulation,
                "urgent",
                requested_by,
                approved_by,
                external_request_id=external_request_id,
                serving_policy=serving_policy,
            )
        )

    def submit(
        self,
        what: Selector | Plan,
        *,
        regulation: str | None = None,
        priority: Priority = "normal",
        requested_by: str = "",
        approved_by: str = "",
        reason: str = "",
        external_request_id: str | None = None,
        idempotency_key: str | None = None,
        received_at: datetime | None = None,
        serving_policy: ServingPolicy | None = None,
        unknown: Unknown = "raise",
    ) -> Request:
        """Accept a request that is carried out when its windows say so; see :meth:`run`.

        When this returns, the request survives anything, and no prediction reads its records.

        Args:
            what: records, a ``Subject``, or a plan; a ``Where`` only as its plan.
            regulation: profile of its deadlines; default ``erasure.regulation``.
            priority: ``urgent`` and ``regulator`` wait for no window.
            requested_by: who asks; somebody else has to approve a large request.
            approved_by: who approved it already.
            reason: why, for the log.
            external_request_id: the caller's own id; asked again with the same content, it gives
                the same request.
            idempotency_key: the same for one call.
            received_at: when the controller got it, where that was earlier: its clock starts then.
            serving_policy: what served predictions do until models without the records are live:
                ``mask``, ``exclude`` the votes of the shards that saw them, or ``block`` what those
                shards own as well. By default what the service has, and ``exclude`` for a
                regulator.
            unknown: as in :meth:`plan`; with ``"report"``, a request of what is not here completes
                with nothing held.

        Raises:
            DuplicateError: the external id or key was used for something else.
            StalePlanError: the plan was made for another state.
            UnknownIdError: as in :meth:`plan`.
            RequestError: unknown regulation, priority or policy, or a ``Where`` without its plan.
        """
        ask = Ask(
            Asking(self.erasing).planned(what, unknown),
            regulation,
            priority,
            requested_by,
            approved_by,
            reason,
            external_request_id,
            idempotency_key,
            received_at,
            serving_policy=serving_policy,
        )
        (record,) = self.erasing.submit([ask])
        return Request(self.erasing, record.request_id)

    def submit_many(
        self,
        erasures: Sequence[Erasure],
        *,
        regulation: str | None = None,
        requested_by: str = "",
        serving_policy: ServingPolicy | None = None,
        unknown: Unknown = "raise",
    ) -> list[Request]:
        """Accept many requests in one transaction; see :meth:`submit`."""
        plans = self.erasing.plan_many(erasures, unknown=unknown)
        asks = [
            Ask(plan, regulation, requested_by=requested_by, serving_policy=serving_policy)
            for plan in plans
        ]
        records = self.erasing.submit(asks)
        return [Request(self.erasing, record.request_id) for record in records]

    def submit_file(
        self,
        file: IdFile,
        *,
        regulation: str | None = None,
        priority: Priority = "normal",
        requested_by: str = "",
        approved_by: str = "",
        reason: str = "",
        external_request_id: str | None = None,
        idempotency_key: str | None = None,
        received_at: datetime | None = None,
        serving_policy: ServingPolicy | None = None,
        unknown: Unknown = "raise",
        progress: Progress | None = None,
    ) -> Request:
        """Accept every id of a file as a request of its own, under one parent.

        The file is read to its end first: a bad line refuses it, and nothing is accepted. After an
        interruption the same call goes on where it stopped.

        Args:
            file: what to read.
            regulation, priority, requested_by, approved_by, reason: as in :meth:`submit`; the size
                of the whole file decides on approval.
            external_request_id, idempotency_key, received_at: as in :meth:`submit`.
            serving_policy: as in :meth:`submit`; each part has it.
            unknown: whether unknown ids refuse the file or are skipped and counted.
            progress: called with (stage, done, total).

        Raises:
            SelectorError: the file is bad, or names what is not here.
            DuplicateError: the external id or key was used for something else.
        """
        from coordinator.files import FileIntake, plan_of_file

        ask = replace(
            plan_of_file(Asking(self.erasing), file),
            regulation=regulation,
            priority=priority,
            requested_by=requested_by,
            approved_by=approved_by,
            reason=reason,
            external_request_id=external_request_id,
            idempotency_key=idempotency_key,
            received_at=received_at,
            serving_policy=serving_policy,
        )
        intake = FileIntake(self.erasing, file, ask, progress or self.engine.progress)
        return Request(self.erasing, intake.accept(unknown).request_id)

    def plan_file(self, file: IdFile, *, unknown: Unknown = "raise") -> Plan:
        """Say what a file of ids would do as a whole; changes nothing.

        Raises:
            SelectorError: the file is bad, or names what is not here.
        """
        from coordinator.files import plan_file

        return plan_file(Asking(self.erasing), file, unknown)

    # ---- follow

    def request(self, request_id: str) -> Request:
        """A request by its id.

        Raises:
            RequestError: there is none.
        """
        self.erasing.record(request_id)
        return Request(self.erasing, request_id)

    def requests(self, *, subject: str | None = None, **wanted: Any) -> list[Request]:
        """Requests by ``state``, ``due_before``, ``external_request_id``, ``kind``, ``parent_id``.

        Args:
            subject: only those of this person.
            wanted: the other conditions.
        """
        ledger = self.engine.ledger
        if subject is not None:
            wanted["subject_ref"] = subject_ref(ledger, subject_text(subject))
        found = ledger.requests.find(**wanted)
        return [Request(self.erasing, record.request_id) for record in found]

    def run(self) -> list[str]:
        """Carry out every batch whose time has come; returns their ids."""
        return self.erasing.run()
