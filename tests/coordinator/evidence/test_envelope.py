from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from cluster.errors import VerificationError
from coordinator.evidence import errors
from coordinator.evidence.canonical import canonical, read_canonical, read_object
from coordinator.evidence.check import check_certificate, open_certificate
from coordinator.evidence.dsse import IN_TOTO, open_envelope, pae, sign
from coordinator.evidence.keys import Signer, key_id_of, parse_keys, read_keys
from tests.coordinator.evidence.cases import Case

RFC_8785_SECTION_3_2_2 = (
    '{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],'
    '"string":"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/",'
    '"literals":[null,true,false]}'
)
RFC_8785_SECTION_3_2_4 = bytes.fromhex(
    "7b226c69746572616c73223a5b6e756c6c2c747275652c66616c73655d2c226e"
    "756d62657273223a5b3333333333333333332e333333333333332c31652b3330"
    "2c342e352c302e3030322c31652d32375d2c22737472696e67223a22e282ac24"
    "5c75303030665c6e4127425c225c5c5c5c5c222f227d"
)


def test_canonical_json_is_that_of_rfc_8785_section_3_2() -> None:
    assert canonical(json.loads(RFC_8785_SECTION_3_2_2)) == RFC_8785_SECTION_3_2_4


def test_members_are_sorted_by_utf_16_code_units_as_rfc_8785_wants() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]

    text = canonical(dict.fromkeys(names, 0)).decode()

    assert list(json.loads(text)) == [
        "\r",
        "1",
        "\u0080",
        "\u00f6",
        "\u20ac",
        "\U0001f600",
        "\ufb33",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, {1: 2}, {"a": b"raw"}])
def test_what_json_cannot_say_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(errors.CanonicalError):
        canonical(value)


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', "[1]", "{", '{"a":NaN}', b"\xff{}", "[" * 9999])
def test_only_an_object_without_repeated_members_is_read(text: str | bytes) -> None:
    with pytest.raises(errors.JsonError):
        read_object(text, "text")


def test_a_value_written_otherwise_is_not_canonical() -> None:
    with pytest.raises(errors.CanonicalError):
        read_canonical(b'{"a": 1}', "text")


def test_the_pre_authentication_encoding_is_that_of_the_dsse_document() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_securesystemslib_verifies_our_envelopes(case: Case) -> None:
    key = SSlibKey(
        case.signer.key_id,
        "ed25519",
        "ed25519",
        {"public": case.signer.public_key.public_bytes_raw().hex()},
    )
    envelope = Envelope.from_dict(json.loads(case.text))

    accepted = envelope.verify([key], 1)

    assert list(accepted) == [case.signer.key_id]
    assert envelope.payload_type == IN_TOTO
    assert json.loads(envelope.payload) == case.statement


def keys_of(case: Case) -> dict[str, Any]:
    return {case.signer.key_id: case.signer.public_key}


def test_a_certificate_opens_with_the_issuers_key(case: Case) -> None:
    assert open_certificate(case.text, keys_of(case)) == case.statement
    assert check_certificate(case.text, keys_of(case)).ok


def test_every_flipped_byte_of_a_certificate_is_an_error_of_its_own(case: Case) -> None:
    keys, raw, kinds = keys_of(case), case.text.encode(), set()

    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(VerificationError) as caught:
            open_certificate(bytes(flipped), keys)
        kinds.add(type(caught.value))

    assert VerificationError not in kinds
    assert kinds >= {errors.JsonError, errors.Base64Error, errors.SignatureError}
    assert kinds >= {errors.UnknownKeyError, errors.PayloadTypeError, errors.MissingFieldError}


def test_every_bit_of_some_bytes_of_the_signed_payload_counts(case: Case) -> None:
    raw = case.text.encode()

    for position in range(0, len(raw), 97):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[position] ^= 1 << bit
            assert not check_certificate(bytes(flipped), keys_of(case)).ok


def altered(case: Case, change: Callable[[dict[str, Any]], Any]) -> str:
    """The certificate with its envelope changed."""
    envelope = json.loads(case.text)
    change(envelope)
    return json.dumps(envelope)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda e: e.update(payloadType="text/plain"), errors.PayloadTypeError),
        (lambda e: e.update(payload=e["payload"] + "="), errors.Base64Error),
        (lambda e: e.update(payload="_" + e["payload"][1:]), errors.Base64Error),
        (lambda e: e["signatures"][0].update(keyid="0" * 16), errors.UnknownKeyError),
        (lambda e: e["signatures"][0].update(sig=base64.b64encode(bytes(64)).decode()),
         errors.SignatureError),
        (lambda e: e["signatures"][0].update(sig=""), errors.SignatureError),
        (lambda e: e["signatures"].append(e["signatures"][0]), errors.FieldValueError),
        (lambda e: e.update(signatures=[]), errors.FieldValueError),
        (lambda e: e.update(signatures="x"), errors.FieldValueError),
        (lambda e: e.update(extra=1), errors.UnknownFieldError),
        (lambda e: e.pop("signatures"), errors.MissingFieldError),
    ],
)  # fmt: skip
def test_every_altered_field_of_an_envelope_has_its_error(
    case: Case, change: Callable[[dict[str, Any]], Any], error: type[VerificationError]
) -> None:
    with pytest.raises(error):
        open_certificate(altered(case, change), keys_of(case))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.update(_type="other"), errors.StatementTypeError, "_type"),
        (lambda s: s.update(predicateType="other"), errors.StatementTypeError, "predicateType"),
        (lambda s: s["predicate"].pop("log"), errors.MissingFieldError, "'log'"),
        (lambda s: s["predicate"].update(more=1), errors.UnknownFieldError, "'more'"),
        (lambda s: s["predicate"]["request"].update(id=7), errors.FieldValueError, "request.id"),
        (lambda s: s["predicate"]["scope"].update(unknown=True), errors.FieldValueError, "unknown"),
        (lambda s: s["predicate"]["issuer"].update(key_id="x"), errors.FieldValueError, "key_id"),
        (lambda s: s["predicate"]["scope"].update(shards=[]), errors.FieldValueError, "shards"),
        (lambda s: s.update(subject=[]), errors.FieldValueError, "subject"),
        (lambda s: s["predicate"]["shards"][0]["trees"]["after"].update(root="0" * 64),
         errors.TreeProofError, "root"),
        (lambda s: s["predicate"]["shards"][0]["trees"]["records"][0].update(after="0" * 64),
         errors.RecordError, "leaf"),
    ],
)  # fmt: skip
def test_a_signed_statement_that_is_wrong_is_refused(
    case: Case,
    change: Callable[[dict[str, Any]], Any],
    error: type[VerificationError],
    message: str,
) -> None:
    statement = json.loads(json.dumps(case.statement))
    change(statement)

    with pytest.raises(error, match=message):
        open_certificate(sign(statement, case.signer), keys_of(case))


def test_a_signed_payload_that_is_not_canonical_is_refused(case: Case) -> None:
    payload = json.dumps(case.statement).encode()
    signature = case.signer.sign(pae(IN_TOTO, payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": IN_TOTO,
        "signatures": [{"keyid": case.signer.key_id, "sig": base64.b64encode(signature).decode()}],
    }

    with pytest.raises(errors.CanonicalError):
        open_envelope(json.dumps(envelope), keys_of(case))


# ---- key files


def test_a_key_pair_is_read_back_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    made = Signer.create(tmp_path)

    assert Signer.open(tmp_path).key_id == made.key_id == key_id_of(made.public_key)
    assert (tmp_path / "signing.key").stat().st_mode & 0o777 == 0o600
    assert list(read_keys(tmp_path / "issuer.pub")) == [made.key_id]
    with pytest.raises(errors.KeyFileError, match="exists"):
        Signer.create(tmp_path)


def test_a_rotated_key_signs_and_the_old_public_key_stays(tmp_path: Path) -> None:
    old = Signer.create(tmp_path)
    before = sign({"a": 1}, old)

    new = old.rotate()

    keys = read_keys(tmp_path / "issuer.pub")
    assert list(keys) == [new.key_id, old.key_id]
    assert Signer.open(tmp_path).key_id == new.key_id
    assert open_envelope(before, keys) == ({"a": 1}, old.key_id)


@pytest.mark.parametrize("public_written", [False, True])
def test_a_rotation_that_was_killed_is_finished_or_undone(
    tmp_path: Path, public_written: bool
) -> None:
    old = Signer.create(tmp_path / "home")
    new = Signer.create(tmp_path / "other")
    staged = tmp_path / "home" / "signing.key.next"
    staged.write_bytes((tmp_path / "other" / "signing.key").read_bytes())
    staged.chmod(0o600)
    public = tmp_path / "home" / "issuer.pub"
    if public_written:
        public.write_bytes((tmp_path / "other" / "issuer.pub").read_bytes() + public.read_bytes())

    opened = Signer.open(tmp_path / "home")

    assert opened.key_id == (new if public_written else old).key_id
    assert not staged.exists()


def test_every_flipped_byte_of_a_private_key_is_noticed(tmp_path: Path) -> None:
    Signer.create(tmp_path)
    path = tmp_path / "signing.key"
    raw = path.read_bytes()

    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(bytes(flipped))
        with pytest.raises(errors.KeyFileError):
            Signer.open(tmp_path)


def test_every_flipped_byte_of_a_public_key_is_noticed(case: Case, tmp_path: Path) -> None:
    raw = (case.signer.folder / "issuer.pub").read_bytes()

    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 8
        with pytest.raises((errors.KeyFileError, errors.UnknownKeyError)):
            open_certificate(case.text, parse_keys(bytes(flipped), "issuer.pub"))


def test_a_missing_an_open_and_a_foreign_key_file_are_named(tmp_path: Path) -> None:
    Signer.create(tmp_path / "a")
    Signer.create(tmp_path / "b")
    own = tmp_path / "a" / "signing.key"

    with pytest.raises(errors.KeyFileError, match="cannot be read"):
        Signer.open(tmp_path)
    own.chmod(0o644)
    with pytest.raises(errors.KeyFileError, match="read by others"):
        Signer.open(tmp_path / "a")
    own.write_bytes((tmp_path / "b" / "signing.key").read_bytes())
    own.chmod(0o600)
    with pytest.raises(errors.KeyFileError, match="restore the file"):
        Signer.open(tmp_path / "a")


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    Signer.create(tmp_path)

    with pytest.raises(errors.KeyFileError, match="not a list of public keys"):
        read_keys(tmp_path / "signing.key")


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file where the folder belongs")

    with pytest.raises(errors.KeyFileError, match="cannot take a key"):
        Signer.create(tmp_path / "keys")
