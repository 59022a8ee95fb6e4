"""What `unweave verify CERT`, `unweave log` and `unweave certificates` do.

Checking a certificate alone imports neither torch, Ray nor SQL.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.errors import ConfigError, VerificationError
from coordinator.certificates import find_certificate, verify
from coordinator.evidence.chain import check_chain, export_log, import_log
from coordinator.evidence.check import check_files, describe_file, read_file
from coordinator.evidence.keys import PUBLIC_NAME, read_keys
from coordinator.evidence.report import Report
from coordinator.terminal import Json, emit, open_ledger


def verify_certificate(
    certificate: Path,
    key: Path,
    *,
    state: Path | None = None,
    replay: Path | None = None,
    shards: list[int] | None = None,
    secret: Path | None = None,
    disclosure: Path | None = None,
    record: Path | None = None,
    as_json: bool = False,
) -> None:
    """Check a certificate or an acceptance receipt; exits with 7 where a check fails.

    Args:
        certificate: the envelope.
        key: the issuer's ``issuer.pub``.
        state: a home to compare with what is live.
        replay: a home whose shards to train again and compare.
        shards: the shards to replay.
        secret: file with the certificate's secret (64 hex digits).
        disclosure: JSON file with a disclosed leaf key.
        record: JSON file with a record to look up.
        as_json: print one JSON object instead of text.
    """
    report = check_files(certificate, key, secret=secret, disclosure=disclosure, record=record)
    if report.checks[0].ok and not as_json:
        typer.echo(describe_file(read_file(certificate), read_keys(key)))
    if report.ok and (state or replay):
        deeper = verify(certificate, key, state=state, replay=replay, shards=shards)
        report = Report((*report.checks, *deeper.checks[1:]), deeper.replayed)
    finish(report, as_json=as_json)


def verify_log(log: Path, key: Path, *, log_id: str | None = None, as_json: bool = False) -> None:
    """Check an exported audit log (JSON lines); exits with 7 where a check fails.

    Args:
        log: the exported file.
        key: the issuer's ``issuer.pub``.
        log_id: id of the log that its heads must name; None to take the first head's.
        as_json: print one JSON object instead of text.
    """
    rows, heads = import_log(read_file(log).splitlines(keepends=True))
    finish(check_chain(rows, heads, read_keys(key), log_id), as_json=as_json)


log = typer.Typer(help="The audit log: verify it, export it.", no_args_is_help=True)
certificates = typer.Typer(help="Certificates: list, save, disclose.", no_args_is_help=True)

Home = Annotated[Path, typer.Option("--home", help="Folder of the system.")]


@log.command("verify")
def log_verify(
    file: Annotated[Path | None, typer.Argument(help="An exported log.")] = None,
    home: Annotated[Path | None, typer.Option("--home", help="Or a home.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="The issuer's issuer.pub.")] = None,
    as_json: Json = False,
) -> None:
    """Check the hash chain and the signed heads of the audit log."""
    if (file is None) == (home is None):
        raise ConfigError("give either an exported log, or --home")
    if file is not None:
        if key is None:
            raise ConfigError("an exported log is checked with the issuer's key; give --key")
        verify_log(file, key, as_json=as_json)
        return
    assert home is not None
    with open_ledger(home) as (ledger, _):
        rows = [row_json(row) for row in ledger.audit.rows()]
        heads = list(ledger.audit.signed_heads().values())
        own = ledger.setting("home_id")
    keys = read_keys(key or home / "keys" / PUBLIC_NAME)
    finish(check_chain(rows, heads, keys, own), as_json=as_json)


@log.command("export")
def log_export(
    home: Home, out: Annotated[Path, typer.Option("--out", help="File to write.")]
) -> None:
    """Write the audit log and its signed heads as JSON lines."""
    with open_ledger(home) as (ledger, _):
        rows = [row_json(row) for row in ledger.audit.rows()]
        heads = list(ledger.audit.signed_heads().values())
    out.write_text("".join(export_log(rows, heads)))
    typer.echo(f"{len(rows)} rows and {len(heads)} signed heads in {out}")


@certificates.command("ls")
def certificates_ls(home: Home, as_json: Json = False) -> None:
    """List the certificates, oldest first."""
    with open_ledger(home) as (ledger, _):
        found = ledger.certificates.list()
    rows = [{"certificate": c.certificate_id, "request": c.request_id} for c in found]
    if as_json:
        emit({"certificates": rows})
    else:
        for row in rows:
            typer.echo(f"{row['certificate']}  {row['request']}")


@certificates.command("show")
def certificates_show(
    name: Annotated[str, typer.Argument(help="Id of the certificate, or of its request.")],
    home: Home,
    out: Annotated[Path | None, typer.Option("--out", help="Save the envelope here.")] = None,
    as_json: Json = False,
) -> None:
    """Print a certificate for people, or save it for somebody else to verify."""
    with open_ledger(home) as (ledger, _):
        found = find_certificate(ledger, name)
    if out is not None:
        found.save(out)
        typer.echo(f"{found.certificate_id} in {out}; the key to verify it is {found.keys}")
    elif as_json:
        emit(dict(found.statement))
    else:
        typer.echo(str(found))


@certificates.command("disclose")
def certificates_disclose(
    name: Annotated[str, typer.Argument(help="Id of the certificate, or of its request.")],
    home: Home,
    shard: Annotated[int, typer.Option("--shard", help="The shard to open.")],
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
) -> None:
    """Write the leaf key of one shard, for the requester or an auditor; see docs/evidence.md."""
    with open_ledger(home) as (ledger, _):
        found = find_certificate(ledger, name)
    out.write_text(json.dumps(found.disclose(shard).to_json()))
    out.chmod(0o600)
    typer.echo(f"leaf key of shard {shard} of {found.certificate_id} in {out}")


def row_json(row: Any) -> dict[str, Any]:
    """A row of the log as it is exported."""
    return {**row.content(), "hash": row.hash}


def finish(report: Report, *, as_json: bool) -> None:
    """Print a report; exit with the status of a failed verification where it did not pass."""
    if as_json:
        emit(report.to_json())
    else:
        typer.echo("\n".join(report.lines()))
    if not report.ok:
        raise typer.Exit(VerificationError.exit_code)
