"""What `unweave verify CERT` and `unweave log verify` do; imports neither torch, Ray nor SQL."""

from __future__ import annotations

from pathlib import Path

import typer

from cluster.errors import VerificationError
from coordinator.evidence.chain import check_chain, import_log
from coordinator.evidence.check import check_files, open_certificate, read_file
from coordinator.evidence.describe import describe
from coordinator.evidence.keys import read_keys
from coordinator.evidence.report import Report
from coordinator.terminal import emit


def verify_certificate_cmd(
    certificate: Path,
    key: Path,
    *,
    secret: Path | None = None,
    disclosure: Path | None = None,
    record: Path | None = None,
    as_json: bool = False,
) -> None:
    """Check a certificate file and print what it says; exits with 7 where a check fails.

    Args:
        certificate: the envelope.
        key: the issuer's ``issuer.pub``.
        secret: file with the certificate's secret (64 hex digits).
        disclosure: JSON file with a disclosed leaf key.
        record: JSON file with a record to look up.
        as_json: print one JSON object instead of text.
    """
    report = check_files(certificate, key, secret=secret, disclosure=disclosure, record=record)
    if report.checks[0].ok and not as_json:
        typer.echo(describe(open_certificate(read_file(certificate), read_keys(key))))
    finish(report, as_json=as_json)


def log_verify_cmd(
    log: Path, key: Path, *, log_id: str | None = None, as_json: bool = False
) -> None:
    """Check an exported audit log (JSON lines); exits with 7 where a check fails.

    Args:
        log: the exported file.
        key: the issuer's ``issuer.pub``.
        log_id: id of the log that its heads must name; None to take the first head's.
        as_json: print one JSON object instead of text.
    """
    rows, heads = import_log(read_file(log).splitlines(keepends=True))
    finish(check_chain(rows, heads, read_keys(key), log_id), as_json=as_json)


def finish(report: Report, *, as_json: bool) -> None:
    """Print a report; exit with the status of a failed verification where it did not pass."""
    if as_json:
        emit(report.to_json())
    else:
        typer.echo("\n".join(report.lines()))
    if not report.ok:
        raise typer.Exit(VerificationError.exit_code)
