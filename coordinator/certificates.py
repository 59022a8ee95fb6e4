"""Certificates of a home: read, disclosed, compared with what is live, replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ConfigError, HomeError, RequestError, VerificationError
from coordinator.evidence.check import check_certificate, open_certificate
from coordinator.evidence.describe import describe
from coordinator.evidence.facts import Submodel
from coordinator.evidence.keys import PUBLIC_NAME, read_keys
from coordinator.evidence.live import check_live, follow
from coordinator.evidence.lookup import shard_entry
from coordinator.evidence.report import Check, Report
from coordinator.evidence.salts import NEW, Disclosure, derive, disclose
from coordinator.evidence.statement import seal_submodel

if TYPE_CHECKING:
    from coordinator.generation import Generation
    from coordinator.ledger import Ledger

Live = dict[int, tuple[str, str | None]]


@dataclass(frozen=True)
class Certificate:
    """A signed certificate.

    Attributes:
        certificate_id: its id.
        text: the DSSE envelope.
        keys: file with the issuer's public keys.
        secret: lets its holder test guesses of the erased records; never part of the text.
    """

    certificate_id: str
    text: str
    keys: Path
    secret: bytes = field(repr=False)

    @cached_property
    def statement(self) -> Mapping[str, Any]:
        """The in-toto statement, its signature checked.

        Raises:
            VerificationError: it is not what was signed.
        """
        return open_certificate(self.text, read_keys(self.keys))

    def __str__(self) -> str:
        return describe(self.statement)

    def save(self, path: str | Path) -> Path:
        """Write the envelope to a file."""
        target = Path(path)
        target.write_text(self.text)
        return target

    def disclose(self, shard: int) -> Disclosure:
        """What lets a requester or auditor find their own record in one shard's trees.

        Raises:
            ConfigError: the certificate does not speak of that shard.
        """
        known = self.statement["predicate"]["scope"]["shards"]
        if shard not in known:
            raise ConfigError(
                f"{self.certificate_id} does not speak of shard {shard}; choose one of {known}"
            )
        return disclose(self.secret, self.certificate_id, shard)


def find_certificate(ledger: Ledger, name: str) -> Certificate:
    """A certificate by its own id or by its request's.

    Raises:
        RequestError: there is none.
    """
    table = ledger.certificates
    found = table.get(name) or table.of_request(name)
    if found is None:
        raise RequestError(
            f"no certificate {name!r} in {ledger.home}; a request gets one when it is completed"
        )
    keys = ledger.home / "keys" / PUBLIC_NAME
    return Certificate(found.certificate_id, found.envelope, keys, found.secret)


def verify(
    certificate: str | bytes | Path | Certificate,
    key: str | Path,
    *,
    state: str | Path | None = None,
    replay: str | Path | None = None,
    shards: Sequence[int] | None = None,
) -> Report:
    """Check a certificate.

    Args:
        certificate: the envelope, a file that holds it, or a Certificate.
        key: the issuer's ``issuer.pub``.
        state: a home whose live submodels to compare with.
        replay: a home whose shards to train again, in a fresh process, and compare.
        shards: the shards to replay; default those the certificate speaks of.
    """
    text = _text(certificate)
    report = check_certificate(text, read_keys(Path(key)))
    if not report.ok or (state is None and replay is None):
        return report
    statement = open_certificate(text, read_keys(Path(key)))
    if state is not None:
        report = _joined(report, _compare(statement, Path(state), Path(key), None))
    if replay is not None:
        known = statement["predicate"]["scope"]["shards"]
        wanted = known if shards is None else list(shards)
        if set(wanted) - set(known):
            raise ConfigError(f"the certificate speaks of shards {known}, not of all of {wanted}")
        report = _joined(report, _compare(statement, Path(replay), Path(key), wanted))
    return report


def _text(certificate: str | bytes | Path | Certificate) -> str | bytes:
    if isinstance(certificate, Certificate):
        return certificate.text
    if isinstance(certificate, Path) or (
        isinstance(certificate, str) and not certificate.lstrip().startswith("{")
    ):
        try:
            return Path(certificate).read_bytes()
        except OSError as error:
            raise VerificationError(f"{certificate} cannot be read: {error.strerror}") from None
    return certificate


def _joined(first: Report, second: Report) -> Report:
    return Report((*first.checks, *second.checks), (*first.replayed, *second.replayed))


def _compare(
    statement: Mapping[str, Any], home: Path, key: Path, replayed: list[int] | None
) -> Report:
    """Compare with what a home has published, or with what training it again gives."""
    from coordinator.config import load_config
    from coordinator.ledger import Ledger

    if not (home / "config.yaml").exists():
        raise HomeError(f"no system in {home}; name the home that the certificate is of")
    config = load_config(home / "config.yaml")
    ledger = Ledger(config.storage.database or "ledger.db", home=home)
    try:
        own = ledger.certificates.get(statement["predicate"]["certificate"])
        if own is None:
            gone = Check("home", False, f"{home} did not issue this certificate")
            return Report((gone,))
        issued = ledger.certificates.list()
        later = [open_certificate(item.envelope, read_keys(key)) for item in issued]
        live = _live(ledger) if replayed is None else _replayed(ledger, home, replayed)
        report = check_live(statement, own.secret, live, later)
        shards = statement["predicate"]["scope"]["shards"] if replayed is None else replayed
        last = [
            check
            for shard in shards
            for check in _certified_last(ledger, statement, shard, live, later)
        ]
    finally:
        ledger.close()
    if replayed is None:
        return Report((*report.checks, *last))
    wanted = {f"shard {shard}" for shard in replayed}
    checks = [
        Check(f"replay of {check.name}", check.ok, check.detail)
        for check in (*report.checks, *last)
        if check.name in wanted or check.name == "secret"
    ]
    return Report(tuple(checks), tuple(replayed))


def _certified_last(
    ledger: Ledger,
    statement: Mapping[str, Any],
    shard: int,
    live: Live,
    later: Sequence[Mapping[str, Any]],
) -> list[Check]:
    """Whether a superseded shard has what the last certificate of its chain says."""
    try:
        chain = follow(statement, shard, later)
    except VerificationError:
        return []  # the comparison has said so already
    found = ledger.certificates.get(chain[-1]) if chain else None
    if found is None:
        return []
    known = {item["predicate"]["certificate"]: item for item in later}
    entry = shard_entry(known[found.certificate_id], shard) or {}
    salt = derive(found.secret, found.certificate_id, NEW, shard)
    mine = seal_submodel(salt, Submodel(*live[shard])) if shard in live else None
    name = f"shard {shard}"
    if mine == entry.get("new"):
        return [Check(name, True, f"has what certificate {found.certificate_id} says")]
    wrong = "differs from what the last certificate of its chain says"
    return [Check(name, False, f"{wrong} ({found.certificate_id})")]


def _generation(ledger: Ledger) -> Generation:
    from coordinator.generation import Generation

    current = ledger.current_generation()
    if current is None:
        raise HomeError(f"{ledger.home} has no published generation")
    return Generation.from_json(*current)


def _live(ledger: Ledger) -> Live:
    from cluster.digest import tensors_digest
    from cluster.errors import CorruptArtefactError
    from cluster.store import LocalStore
    from shards.checkpoint import load_weights

    live: Live = {}
    store = LocalStore(ledger.home)
    for shard, entry in _generation(ledger).shards.items():
        weights = entry.weights_digest
        if weights is not None:
            try:
                weights = str(tensors_digest(load_weights(store, entry.key)))
            except CorruptArtefactError:
                weights = "damaged"
        live[shard] = (entry.key, weights)
    return live


def _replayed(ledger: Ledger, home: Path, shards: Sequence[int]) -> Live:
    """What training these shards again, from the stored graph, gives."""
    from cluster.home import load_partition
    from cluster.store import LocalStore
    from coordinator.config import load_config
    from coordinator.pools.inline import FreshPool
    from shards.jobs import ReplayJob
    from shards.recipe import Recipe, choose_profile, submodel_seed

    config, generation = load_config(home / "config.yaml"), _generation(ledger)
    recipe = Recipe(config.shards, choose_profile(config.shards))
    names = load_partition(LocalStore(home), generation.partition_key).names
    keys = (generation.graph_key, generation.partition_key)
    jobs = [
        ReplayJob(str(home), *keys, shard, recipe, submodel_seed(config.seed, names[shard]))
        for shard in shards
    ]
    pool = FreshPool(recipe.profile)
    try:
        reports = pool.map("replay", jobs)
    finally:
        pool.close()
    return {r.shard: (r.submodel_key, r.weights_digest) for r in reports}
