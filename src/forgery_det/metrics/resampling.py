"""Draw clusters with replacement and turn each draw into class counts; the engine under every bootstrap here.

Images of one cluster (one photo and its crops, one prompt) are not independent, so clusters are drawn, never images.
The draw is stratified by what a cluster holds: only real images, only generated ones, or both. Each stratum keeps its
number of clusters, so no replicate loses a class.

Two exact shortcuts make it fast. Clusters with the same content (the same counts of each class at each distinct value)
are exchangeable, so only how often each *kind* of cluster is drawn matters: for a rate there are a handful of kinds,
however many images. And a replicate is only a change of counts: logits are sorted once, never again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from forgery_det.metrics.counts import ClassCounts
from forgery_det.metrics.errors import MetricError
from forgery_det.metrics.inputs import FloatArray, IntArray

Index = NDArray[np.intp]

# What a cluster holds: only real images, only generated ones, both.
STRATA = (1, 2, 3)

# Elements of the largest temporary array: 8 MB of float64, so a block of replicates stays near the processor's cache.
BLOCK_ELEMENTS = 2**20
# Multinomial draws cost about as much per kind as ten single draws cost per cluster.
_MULTINOMIAL_COST = 10
# The acceleration of BCa is a third moment: 200 groups give it to about 0.003, and a million clusters stay affordable.
_JACKKNIFE_KINDS = 1000
_JACKKNIFE_GROUPS = 200


def cluster_codes(cluster: ArrayLike) -> tuple[Index, int]:
    """Number the clusters 0..K-1 in sorted order; returns the code of each item [N] and K.

    Raises:
        MetricError: not one-dimensional, missing values (None, NaN), or a mixture of types that cannot be sorted.

    Example:
        >>> codes, k = cluster_codes(["b", "a", "b"])
        >>> codes.tolist(), k
        ([1, 0, 1], 2)
    """
    cluster_N = np.asarray(cluster)
    if cluster_N.ndim != 1:
        raise MetricError(f"Expected `cluster` with 1 dimension, got shape {cluster_N.shape}.")
    names = cluster_N.tolist()
    missing = [index for index, name in enumerate(names) if name is None or name != name]
    if missing:
        raise MetricError(
            f"Expected `cluster` without missing values, got {len(missing)} of {len(names)}, the first at index "
            f"{missing[0]}. Give an image without a group its own cluster, for instance its image_id."
        )
    if cluster_N.dtype.kind in "iufb":
        unique, code_N = np.unique(cluster_N, return_inverse=True)
        return code_N, len(unique)
    try:
        rank = {name: position for position, name in enumerate(sorted(set(names)))}
    except TypeError as error:
        raise MetricError(f"Expected `cluster` of one type (all strings or all integers): {error}.") from error
    return np.fromiter((rank[name] for name in names), dtype=np.intp, count=len(names)), len(rank)


@dataclass(frozen=True, slots=True)
class ClusterDesign:
    """Kinds of clusters, how many there are of each, and the strata they are drawn in.

    Kinds are ordered by stratum, then by their lowest cell. The last one is empty and never drawn: cells that a class
    does not reach read their zero there, which is three times faster than scattering into zeros.

    Attributes:
        n_real: Clusters that hold at least one real image.
        n_generated: Clusters that hold at least one generated image.
        n_clusters: All clusters.
        size: Number of clusters of each kind, [S].
        stratum: Stratum of each kind, [S]: 1 only real, 2 only generated, 3 both, 4 the empty kind.
        member: One cluster of each kind but the empty one, by its code, [S - 1].
    """

    n_real: int
    n_generated: int
    n_clusters: int
    size: IntArray
    stratum: IntArray
    member: Index

    def draw(self, n_replicates: int, seed: int, widest: int) -> Iterator[FloatArray]:
        """Yield blocks [R, S] of how often each kind was drawn; `n_replicates` rows in all.

        Args:
            n_replicates: Rows in all blocks together.
            seed: Of the generators; each stratum has its own, so the block length does not change the draws.
            widest: Elements that one replicate will need later; bounds the rows of a block.
        """
        generators = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(len(STRATA))]
        rows = max(1, BLOCK_ELEMENTS // max(widest, self.n_clusters, len(self.size)))
        for start in range(0, n_replicates, rows):
            block = min(rows, n_replicates - start)
            count_RS = np.zeros((block, len(self.size)))
            for kinds, generator in zip(self.kinds_by_stratum(), generators, strict=True):
                _draw_stratum(self.size[kinds], generator, count_RS[:, kinds])
            yield count_RS

    def kinds_by_stratum(self) -> list[slice]:
        """Return the kinds of each stratum in `STRATA`; kinds are ordered by stratum."""
        ends = np.searchsorted(self.stratum, [*STRATA, STRATA[-1] + 1])
        return [slice(int(low), int(high)) for low, high in itertools.pairwise(ends)]

    def leave_out(self, seed: int) -> tuple[LeftOut, ...]:
        """Return what the jackknife leaves out: single clusters, or random groups of them where kinds are many."""
        generator = np.random.default_rng(seed)
        parts = []
        for kinds in self.kinds_by_stratum():
            kind_T = np.arange(kinds.start, kinds.stop)
            if not kind_T.size:
                continue
            if len(kind_T) <= _JACKKNIFE_KINDS:
                parts.append(LeftOut(kind_T, np.arange(len(kind_T)), self.size[kind_T]))
                continue
            cluster_K = generator.permutation(np.repeat(kind_T, self.size[kind_T]))
            group_K = np.arange(len(cluster_K)) % _JACKKNIFE_GROUPS
            parts.append(LeftOut(cluster_K, group_K, np.ones(_JACKKNIFE_GROUPS, dtype=np.int64)))
        return tuple(parts)

    def without(self, left_out: LeftOut, widest: int) -> Iterator[FloatArray]:
        """Yield blocks [R, S] of the kinds' counts of the full sample, each row less one unit of `left_out`."""
        n_units = len(left_out.repeat)
        rows = max(1, BLOCK_ELEMENTS // max(widest, len(self.size)))
        for start in range(0, n_units, rows):
            inside = (left_out.unit >= start) & (left_out.unit < start + rows)
            count_RS = np.tile(self.size.astype(np.float64), (min(rows, n_units - start), 1))
            np.subtract.at(count_RS, (left_out.unit[inside] - start, left_out.kind[inside]), 1.0)
            yield count_RS


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Units that the jackknife leaves out of one stratum, one after the other.

    Attributes:
        kind: Kinds of the clusters that belong to the units.
        unit: The unit of each.
        repeat: How many equal units each one stands for.
    """

    kind: Index
    unit: Index
    repeat: IntArray


def _draw_stratum(size_S: IntArray, generator: np.random.Generator, out_RS: FloatArray) -> None:
    """Draw sum(size_S) clusters with replacement in each row; writes the counts by kind into `out_RS`."""
    n_clusters, n_kinds, rows = int(size_S.sum()), len(size_S), len(out_RS)
    if not n_kinds:
        return
    if n_kinds * _MULTINOMIAL_COST < n_clusters:
        out_RS[:] = generator.multinomial(n_clusters, size_S / n_clusters, size=rows)
        return
    for row in range(rows):
        drawn_K = generator.integers(0, n_clusters, size=n_clusters)
        if n_kinds < n_clusters:
            drawn_K = np.repeat(np.arange(n_kinds), size_S)[drawn_K]
        out_RS[row] = np.bincount(drawn_K, minlength=n_kinds)


def cluster_design(label_N: IntArray, code_N: Index, n_clusters: int, *cells: Index) -> ClusterDesign:
    """Find the strata and the kinds of clusters.

    Args:
        label_N: 0 or 1.
        code_N: Cluster of each item, from `cluster_codes`.
        n_clusters: Number of clusters.
        *cells: Cell of each item [N] for each set of values that will be counted (two for a paired comparison).
    """
    content_K = _content_keys(label_N, code_N, n_clusters, cells)
    real_K = np.bincount(code_N[label_N == 0], minlength=n_clusters) > 0
    generated_K = np.bincount(code_N[label_N == 1], minlength=n_clusters) > 0
    _, member_S, size_S = np.unique(content_K, return_index=True, return_counts=True)
    stratum_S = (real_K + 2 * generated_K.astype(np.int64))[member_S]
    first_K = np.full(n_clusters, np.iinfo(np.intp).max)
    np.minimum.at(first_K, code_N, cells[0])
    # In the order of their cells the kinds are read from memory nearly in sequence when they are counted.
    order_S = np.lexsort((content_K[member_S], first_K[member_S], stratum_S))
    return ClusterDesign(
        int(real_K.sum()),
        int(generated_K.sum()),
        n_clusters,
        np.append(size_S[order_S], 0).astype(np.int64),
        np.append(stratum_S[order_S], STRATA[-1] + 1),
        member_S[order_S],
    )


def _content_keys(label_N: IntArray, code_N: Index, n_clusters: int, cells: tuple[Index, ...]) -> NDArray[np.uint64]:
    """Return a 64-bit key of each cluster's content [K]: the sum of one random word for each (label, cells) it holds.

    Two different contents share a key with probability 2**-64; one would then stand in for the other in the draws.
    """
    combined_N = label_N.astype(np.intp)
    for cell_N in cells:
        _, combined_N = np.unique(combined_N * (int(cell_N.max(initial=0)) + 1) + cell_N, return_inverse=True)
    words = np.random.default_rng(0).integers(0, 2**64, size=int(combined_N.max(initial=0)) + 1, dtype=np.uint64)
    key_K = np.zeros(n_clusters, dtype=np.uint64)
    np.add.at(key_K, code_N, words[combined_N])
    return key_K


class CountProjection:
    """Turns "how often each kind of cluster was drawn" into class counts at each distinct value.

    Args:
        design: Kinds of clusters.
        code_N: Cluster of each item.
        label_N: 0 or 1.
        value_G: Distinct values, ascending.
        cell_N: Cell of each item.
    """

    def __init__(
        self, design: ClusterDesign, code_N: Index, label_N: IntArray, value_G: FloatArray, cell_N: Index
    ) -> None:
        self._value_G = value_G
        kind_K = np.full(design.n_clusters, -1, dtype=np.intp)
        kind_K[design.member] = np.arange(len(design.member))
        self._entries = tuple(
            _class_entries(kind_K[code_N[label_N == wanted]], cell_N[label_N == wanted], len(value_G), len(design.size))
            for wanted in (0, 1)
        )

    def counts(self, count_RS: FloatArray) -> ClassCounts:
        """Return the class counts of each row of draws [R, S]."""
        return ClassCounts(self._value_G, *(entries.spread(count_RS) for entries in self._entries))


@dataclass(frozen=True, slots=True)
class _Entries:
    """Where the images of one class in each cell come from.

    One kind of cluster at most, one image each: `kind` of each cell [G], the empty kind where there is none. Otherwise
    `table` [G, S] holds how many images each kind puts into each cell.
    """

    kind: Index
    table: sparse.csr_array | None

    def spread(self, count_RS: FloatArray) -> FloatArray:
        """Return the images of this class in each cell, [R, G]."""
        if self.table is not None:
            return np.ascontiguousarray((self.table @ count_RS.T).T)
        return np.take(count_RS, self.kind, axis=1)


def _class_entries(kind_N: Index, cell_N: Index, n_cells: int, n_kinds: int) -> _Entries:
    """Keep one cluster of each kind (kind >= 0) and merge its images that share a cell."""
    kept_N = kind_N >= 0
    pair_E, count_E = np.unique(cell_N[kept_N] * n_kinds + kind_N[kept_N], return_counts=True)
    cell_E, kind_E = pair_E // n_kinds, pair_E % n_kinds
    if (count_E == 1).all() and (np.diff(cell_E) > 0).all():
        kind_G = np.full(n_cells, n_kinds - 1)
        kind_G[cell_E] = kind_E
        return _Entries(kind_G, None)
    table = sparse.csr_array((count_E.astype(np.float64), (cell_E, kind_E)), shape=(n_cells, n_kinds))
    return _Entries(kind_E, table)
