"""Acceptance receipts: the same bytes each time, checked offline, and every alteration noticed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from cluster.errors import VerificationError
from coordinator.evidence import errors
from coordinator.evidence.acceptance import (
    ACCEPTANCE_TYPE,
    AcceptanceInput,
    brief,
    describe_acceptance,
    open_acceptance,
    sign_acceptance,
)
from coordinator.evidence.check import check_certificate, main
from coordinator.evidence.dsse import IN_TOTO, sign
from coordinator.evidence.keys import Signer, read_keys
from tests.coordinator.evidence.cases import Case

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
FACTS = AcceptanceInput(
    issuer="acme",
    request_id="req_A",
    kind="nodes",
    regulation="gdpr",
    received_at=NOW,
    accepted_at=NOW,
    due_at=NOW.replace(month=4),
    epoch=7,
    records={"nodes": 1, "edges": 4, "labels": 0},
    unknown=2,
    body="b" * 64,
)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.create(tmp_path)


def keys_of(signer: Signer) -> Any:
    return read_keys(signer.folder / "issuer.pub")


def test_the_same_facts_and_key_give_the_same_bytes(signer: Signer) -> None:
    text = sign_acceptance(FACTS, signer)

    assert sign_acceptance(FACTS, Signer.open(signer.folder)) == text
    assert sign_acceptance(replace(FACTS, epoch=8), signer) != text


def test_a_receipt_is_checked_with_public_keys_alone_also_after_a_rotation(signer: Signer) -> None:
    text = sign_acceptance(FACTS, signer)
    signer.rotate()

    found = open_acceptance(text, keys_of(signer))

    assert found["due_at"] == "2026-04-02T09:00:00Z" and found["epoch"] == 7
    assert found["issuer"] == {"name": "acme", "key_id": signer.key_id}
    assert check_certificate(text, keys_of(signer)).ok
    shown = describe_acceptance(found)
    assert "4 edges, 1 nodes; not here: 2" in shown and "due 2026-04-02T09:00:00Z" in shown


def test_other_tools_verify_it_and_the_short_form_is_of_the_same_envelope(signer: Signer) -> None:
    text = sign_acceptance(FACTS, signer)
    raw = signer.public_key.public_bytes_raw()
    key = SSlibKey(signer.key_id, "ed25519", "ed25519", {"public": raw.hex()})

    Envelope.from_dict(json.loads(text)).verify([key], 1)

    short = brief(text)
    (signature,) = json.loads(text)["signatures"]
    assert short["signature"] == f"ed25519:{signature['sig']}"
    assert short["key_id"] == signer.key_id
    assert short["digest"].startswith("sha256:") and len(short["digest"]) == 7 + 64


def altered(text: str, change: Callable[[dict[str, Any]], None], signer: Signer) -> str:
    """A receipt signed by the issuer that says something else."""
    payload = json.loads(base64.b64decode(json.loads(text)["payload"]))
    change(payload)
    return sign(payload, signer, ACCEPTANCE_TYPE)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda p: p.update(ids=[1]), errors.UnknownFieldError),
        (lambda p: p.pop("due_at"), errors.MissingFieldError),
        (lambda p: p.update(due_at="tomorrow"), errors.FieldValueError),
        (lambda p: p["issuer"].update(key_id="0" * 16), errors.FieldValueError),
    ],
)
def test_a_receipt_of_another_form_is_refused(signer: Signer, change: Any, wanted: Any) -> None:
    text = altered(sign_acceptance(FACTS, signer), change, signer)

    with pytest.raises(wanted):
        open_acceptance(text, keys_of(signer))
    assert not check_certificate(text, keys_of(signer)).ok


def test_a_receipt_with_another_payload_is_refused(signer: Signer, tmp_path: Path) -> None:
    text = sign_acceptance(FACTS, signer)
    envelope = json.loads(text)
    payload = base64.b64decode(envelope["payload"]).replace(b'"epoch":7', b'"epoch":8')
    envelope["payload"] = base64.b64encode(payload).decode()
    forged = tmp_path / "forged.dsse"
    forged.write_text(json.dumps(envelope))
    true = tmp_path / "true.dsse"
    true.write_text(text)
    key = ["--key", str(tmp_path / "issuer.pub")]

    with pytest.raises(errors.SignatureError):
        open_acceptance(forged.read_text(), keys_of(signer))
    assert main([str(true), *key]) == 0
    assert main([str(forged), *key]) == VerificationError.exit_code


def test_certificate_and_receipt_are_not_taken_for_each_other(case: Case, signer: Signer) -> None:
    payload = json.loads(base64.b64decode(json.loads(sign_acceptance(FACTS, signer))["payload"]))

    with pytest.raises(VerificationError):
        check = sign(payload, signer, IN_TOTO)  # a receipt's text under a certificate's type
        open_acceptance(check, keys_of(signer))
    assert not check_certificate(check, keys_of(signer)).ok
    receipt = sign_acceptance(FACTS, signer)
    assert not check_certificate(receipt, keys_of(signer), secret=bytes(32)).ok
