"""What can be wrong with a piece of evidence; each has its own code, all exit with 7."""

from __future__ import annotations

from cluster.errors import VerificationError


class JsonError(VerificationError):
    """The text is no JSON object, or names a member twice."""

    code = "UW-V002"


class MissingFieldError(VerificationError):
    """A field that belongs there is missing."""

    code = "UW-V003"


class UnknownFieldError(VerificationError):
    """A field is there that does not belong."""

    code = "UW-V004"


class FieldValueError(VerificationError):
    """A field has the wrong type or a value outside its range."""

    code = "UW-V005"


class PayloadTypeError(VerificationError):
    """The envelope holds another type of payload."""

    code = "UW-V006"


class Base64Error(VerificationError):
    """A field is not strict base64."""

    code = "UW-V007"


class UnknownKeyError(VerificationError):
    """The signature names a key that is not among the issuer's."""

    code = "UW-V008"


class SignatureError(VerificationError):
    """The signature is not one of the payload by the named key."""

    code = "UW-V009"


class CanonicalError(VerificationError):
    """The payload is not in RFC 8785 canonical form, or cannot be brought into it."""

    code = "UW-V010"


class StatementTypeError(VerificationError):
    """The payload is no in-toto Statement v1 with our predicate."""

    code = "UW-V011"


class TreeProofError(VerificationError):
    """A proof does not lead to the root that the certificate names."""

    code = "UW-V012"


class RecordError(VerificationError):
    """The record is not what the certificate is about, or it was not erased."""

    code = "UW-V013"


class SecretError(VerificationError):
    """The secret or the disclosed key is not the one the certificate commits to."""

    code = "UW-V014"


class KeyFileError(VerificationError):
    """A key file is missing, damaged, readable by others, or does not fit its public half."""

    code = "UW-V015"


class LogRowError(VerificationError):
    """A row of the audit log was changed."""

    code = "UW-V016"


class LogDroppedError(VerificationError):
    """A row of the audit log is missing."""

    code = "UW-V017"


class LogOrderError(VerificationError):
    """Rows of the audit log were put in another order."""

    code = "UW-V018"


class LogInsertedError(VerificationError):
    """A row was put into the audit log."""

    code = "UW-V019"


class LogHeadError(VerificationError):
    """A signed head is not one of this log: forged, or the log was rewritten."""

    code = "UW-V020"


class LogTruncatedError(VerificationError):
    """The audit log ends before a signed head."""

    code = "UW-V021"


class ReplacedError(VerificationError):
    """What is live is neither what the certificate names nor what a later one put in its place."""

    code = "UW-V022"
