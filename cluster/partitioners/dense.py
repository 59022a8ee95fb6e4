"""Tall dense matrices without BLAS: every sum in a fixed order, so bits depend on no kernel.

LAPACK and BLAS choose their kernels by processor and thread count; what is computed here is a
function of its arguments alone. Meant for ``[n, k]`` with small k; cost is O(n k^2).
"""

from __future__ import annotations

import numpy as np

from cluster.partitioners.base import Array
from cluster.partitioners.compiled import compiled

SWEEPS = 60  # of Jacobi rotations; quadratic convergence needs about 10
OFF_DIAGONAL = 1e-16  # entries below this share of the largest are left
RELATIVE_RANK = 1e-12  # eigenvalues of a Gram matrix below this share of the largest count as zero

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def hashed_uniform(hashes: Array, columns: int) -> Array:
    """``[n, columns]`` float64 in [-1, 1), row i a function of ``hashes[i]`` alone.

    Reference:
        splitmix64 (Steele et al., OOPSLA 2014), the hash as its seed.
    """
    state = hashes.astype(np.uint64)[:, None] + _GOLDEN * np.arange(1, columns + 1, dtype=np.uint64)
    state = (state ^ (state >> np.uint64(30))) * _MIX[0]
    state = (state ^ (state >> np.uint64(27))) * _MIX[1]
    state = state ^ (state >> np.uint64(31))
    return np.asarray((state >> np.uint64(11)) * 2.0**-52 - 1.0)


def polar_factor(matrix: Array) -> Array:
    """``[n, k]`` nearest matrix with orthonormal columns, ``U V'`` of the thin SVD.

    By ``M (M'M)^-1/2``; directions in which M has no extent are left out, so that a matrix of rank
    r < k gives a partial isometry of rank r.
    """
    values, vectors = symmetric_eigen(gram(matrix, matrix))
    largest = float(values.max(initial=0.0))
    present = values > RELATIVE_RANK * largest
    inverse_root = np.where(present, 1 / np.sqrt(np.where(present, values, 1.0)), 0.0)
    return times(matrix, times(vectors * inverse_root, np.ascontiguousarray(vectors.T)))


@compiled
def gram(left: Array, right: Array) -> Array:
    """``left' @ right`` for ``[n, k]`` and ``[n, m]``, rows added in order."""
    total = np.zeros((left.shape[1], right.shape[1]))
    for v in range(left.shape[0]):
        for i in range(left.shape[1]):
            for j in range(right.shape[1]):
                total[i, j] += left[v, i] * right[v, j]
    return total


@compiled
def times(left: Array, right: Array) -> Array:
    """``left @ right`` for ``[n, k]`` and ``[k, m]``, terms added in order."""
    product = np.zeros((left.shape[0], right.shape[1]))
    for v in range(left.shape[0]):
        for i in range(left.shape[1]):
            for j in range(right.shape[1]):
                product[v, j] += left[v, i] * right[i, j]
    return product


@compiled
def symmetric_eigen(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues (unordered) and eigenvectors (columns) of a symmetric ``[k, k]`` matrix.

    Reference:
        Cyclic Jacobi rotations, Golub and Van Loan, Matrix Computations, section 8.5.
    """
    size = len(matrix)
    a = matrix.copy()
    rows = np.eye(size)
    largest = np.abs(matrix).max() if size else 0.0
    for _ in range(SWEEPS):
        rotated = False
        for p in range(size - 1):
            for q in range(p + 1, size):
                if abs(a[p, q]) > OFF_DIAGONAL * largest:
                    _rotate(a, rows, p, q)
                    rotated = True
        if not rotated:
            break
    return np.diag(a).copy(), np.ascontiguousarray(rows.T)


@compiled
def _rotate(a: Array, rows: Array, p: int, q: int) -> None:
    """Make ``a[p, q]`` zero by one rotation, in place; ``rows`` holds the eigenvectors."""
    slope = (a[q, q] - a[p, p]) / (2 * a[p, q])
    sign = 1.0 if slope >= 0 else -1.0
    t = sign / (abs(slope) + np.sqrt(slope * slope + 1))
    c = 1 / np.sqrt(t * t + 1)
    s = t * c
    a[p, p] -= t * a[p, q]
    a[q, q] += t * a[p, q]
    a[p, q] = a[q, p] = 0.0
    for i in range(len(a)):
        if i != p and i != q:
            left, right = a[p, i], a[q, i]
            a[p, i] = a[i, p] = c * left - s * right
            a[q, i] = a[i, q] = s * left + c * right
        left, right = rows[p, i], rows[q, i]
        rows[p, i], rows[q, i] = c * left - s * right, s * left + c * right
