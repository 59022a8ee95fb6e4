"""Evidence: signed certificates, keyed trees over a shard's records, the audit log's hash chain.

Imports neither torch, Ray, NumPy nor SQL (:mod:`coordinator.evidence.leaves` alone reads arrays),
so that a third party checks a certificate with the wheel and ``cryptography``.
"""

from __future__ import annotations
