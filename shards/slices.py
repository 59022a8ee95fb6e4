"""Slices of a shard's training: how many epochs each gets, and the keys of their checkpoints.

Reference:
    Bourtoule et al., "Machine Unlearning", IEEE S&P 2021 (SISA), section IV; epoch budget as in the
    authors' code.
"""

from __future__ import annotations

from itertools import pairwise

from cluster.digest import Digest, digest
from shards.config import ShardsConfig
from shards.content import ShardContent
from shards.recipe import Recipe


def slice_epochs(config: ShardsConfig) -> tuple[int, ...]:
    """Training epochs of each slice, R numbers.

    Each gets 2E / (R + 1), rounded down in the running sum. Slice r visits r / R of the rows, so
    the visits add up to those of E epochs without slices, to within one epoch.
    """
    epochs, slices = config.training_epochs, config.slices
    ends = [2 * epochs * number // (slices + 1) for number in range(slices + 1)]
    return tuple(after - before for before, after in pairwise(ends))


def slice_keys(content: ShardContent, recipe: Recipe, seed: int) -> dict[int, Digest]:
    """Slice number -> key of the checkpoint it leaves.

    A key covers the rows of its slice and, through the key before it, of all earlier ones. The last
    slice leaves the submodel itself; a slice before the first label leaves nothing.
    """
    keys, key, last = {}, Digest(""), recipe.config.slices
    for number in range(1, last):
        prefix = content.prefix(number, last)
        key = digest("slice", prefix.digest, key, recipe.key, seed, number)
        if not prefix.is_silent:
            keys[number] = key
    return keys
