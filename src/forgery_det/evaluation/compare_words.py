"""What a comparison says in plain words: which differences are real, and every reason to doubt it.

"Not shown to differ" is never written as "equal": beside it stands how large a difference the images leave possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from forgery_det.evaluation.compare_board import Board, Findings
from forgery_det.evaluation.compare_pairs import Pair, differ
from forgery_det.evaluation.slices import HELD_OUT
from forgery_det.reporting.data import Caveat, Level, Verdict

FEW_CLUSTERS = 20
"""With fewer `source_id`s in a class the intervals and p-values are approximate (`metrics.bootstrap` has the table)."""

FEW_DATASETS = 5
FEW_PAIRS = 6
"""Up to this many pairs on a dataset, each is told in words; of more, only what the best detector is better than."""

_ORDER: dict[Level, int] = {"problem": 0, "doubt": 1, "ok": 2}


def compare_verdict(findings: Findings) -> Verdict:
    """Return headline, the answer for each of several datasets, and caveats, the most serious first."""
    boards, alpha = findings.boards, findings.config["alpha"]
    answers = [Caveat("ok", f"{board.dataset}: {_says(board, alpha)}.") for board in boards if len(boards) > 1]
    caveats = [caveat for board in boards for caveat in _board_caveats(board, findings)] + _rank_caveats(findings)
    caveats.sort(key=lambda caveat: _ORDER[caveat.level])
    level: Level = min((caveat.level for caveat in caveats), key=_ORDER.__getitem__, default="ok")
    headline = _over_all(findings) if len(boards) > 1 else f"{_says(boards[0], alpha)}."
    return Verdict(level, headline, (*answers, *caveats))


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return names as in a sentence.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def _over_all(findings: Findings) -> str:
    pairs = [pair for board in findings.boards for pair in board.pairs]
    real = sum(differ(pair, findings.config["alpha"]) for pair in pairs)
    text = f"{real} of {len(pairs)} differences on {len(findings.boards)} datasets are shown to be real."
    if findings.ranks is None:
        return text
    ranks = findings.ranks
    best = f"{ranks.names[0]} has the best mean rank ({ranks.mean_rank[0]:.2f})"
    behind = [
        name for name in ranks.names if all(ranks.names[0] not in group or name not in group for group in ranks.groups)
    ]
    if ranks.p_value > findings.config["alpha"] or not behind:
        return f"{text} {best}, but that may be luck."
    return f"{text} {best}, and is ahead of {listed(behind)} across datasets."


def _says(board: Board, alpha: float) -> str:
    """Return which differences on one dataset are real; of many detectors, only how the best one stands."""
    names = board.common.names
    real = [pair for pair in board.pairs if differ(pair, alpha)]
    if not board.pairs:
        return "one detector only, nothing to compare"
    if not real:
        return f"no difference in AUROC among {listed(list(names))} is shown to be real"
    told = board.standings if len(board.pairs) <= FEW_PAIRS else board.standings[:1]
    parts = []
    for line in told:
        worse = [
            f"{names[pair.second]} (by {pair.delong.difference:.3f} AUROC)"
            for pair in real
            if names[pair.first] == line.name
        ]
        if worse:
            parts.append(f"{line.name} ranks images better than {listed(worse)}")
    unresolved = len(board.pairs) - len(real)
    if len(board.pairs) > FEW_PAIRS:
        return "; ".join(
            [*parts, f"{len(real)} of {len(board.pairs)} differences are shown to be real, the others may be luck"]
        )
    rest = {0: "no pair is left open", 1: "the other difference may be luck"}
    return "; ".join([*parts, rest.get(unresolved, f"the other {unresolved} differences may be luck")])


def _board_caveats(board: Board, findings: Findings) -> Iterator[Caveat]:
    alpha = findings.config["alpha"]
    on = f" ({board.dataset})" if len(findings.boards) > 1 else ""
    yield from _open_questions(board, alpha, on)
    left_out = {line.name: line.left_out for line in board.standings if line.left_out}
    if left_out:
        told = listed([f"{count} of {name}" for name, count in left_out.items()])
        n = len(board.common.labels)
        yield Caveat(
            "problem" if max(left_out.values()) > n else "doubt",
            f"Not all runs scored the same images: {n} are common and compared, {told} are left out{on}.",
        )
    yield from _sample_caveats(board, findings, on)


def _open_questions(board: Board, alpha: float, on: str) -> Iterator[Caveat]:
    """Tell of each pair that is not settled, or of all of them together when they are many."""
    unresolved = [pair for pair in board.pairs if not differ(pair, alpha)]
    reach = [
        max(abs(p.delong.ci_low), abs(p.delong.ci_high))
        for p in unresolved
        if p.delong.ci_low is not None and p.delong.ci_high is not None
    ]
    if len(unresolved) > FEW_PAIRS // 2 and reach:
        yield Caveat(
            "doubt",
            f"{len(unresolved)} of {len(board.pairs)} pairs are not shown to differ; that is no proof that they are "
            f"equal: differences of up to {max(reach):.2f} AUROC are still possible{on}.",
        )
        unresolved = []
    for pair in unresolved:
        yield _unresolved(board, pair, alpha, on)
    for pair in board.pairs:
        if differ(pair, alpha) and pair.bootstrap.ci_low is not None and pair.bootstrap.ci_low <= 0.0:
            first, second = board.common.names[pair.first], board.common.names[pair.second]
            yield Caveat("doubt", f"The bootstrap interval of {first} less {second} reaches 0, DeLong's does not{on}.")


def _unresolved(board: Board, pair: Pair, alpha: float, on: str) -> Caveat:
    first, second = board.common.names[pair.first], board.common.names[pair.second]
    found = pair.delong
    if pair.holm_delong is None:
        return Caveat("doubt", f"{first} and {second} could not be tested: {found.note}{on}.")
    if found.ci_low is None or found.ci_high is None:
        return Caveat("doubt", f"{first} and {second} are not shown to differ: {found.note}{on}.")
    furthest = max(abs(found.ci_low), abs(found.ci_high))
    resampled = pair.holm_bootstrap
    told = (
        ""
        if resampled is None or resampled > alpha
        else (f" The bootstrap alone would call it real (adjusted p = {resampled:.2g}).")
    )
    return Caveat(
        "doubt",
        f"{first} and {second} are not shown to differ (adjusted p = {pair.holm_delong:.2g}); that is no proof that "
        f"they are equal: a difference of {furthest:.2f} AUROC is still possible{on}.{told}",
    )


def _sample_caveats(board: Board, findings: Findings, on: str) -> Iterator[Caveat]:
    label_N, cluster_N = board.common.labels, board.common.clusters
    clusters = [len(np.unique(cluster_N[label_N == label].astype(str))) for label in (0, 1)]
    if min(clusters) < FEW_CLUSTERS:
        yield Caveat(
            "doubt",
            f"Few independent images: {clusters[0]} real and {clusters[1]} generated source_ids. "
            f"p-values and intervals are approximate below {FEW_CLUSTERS} of each{on}.",
        )
    if board.n_seen is None:
        yield Caveat("doubt", f"Some run does not say which generators its training used{on}.")
    elif board.n_seen and findings.config["images"] != HELD_OUT:
        n_generated = int(label_N.sum())
        yield Caveat(
            "doubt",
            f"{board.n_seen} of {n_generated} generated images come from generators that some of these detectors were "
            f"trained on; `--images exposure=held_out` compares on the others{on}.",
        )
    missing = [line.name for line in board.standings if line.tpr.value is None and "threshold" in line.tpr.note]
    if missing:
        yield Caveat("doubt", f"No threshold from val for {listed(missing)}: decisions cannot be compared{on}.")


def _rank_caveats(findings: Findings) -> list[Caveat]:
    if findings.ranks is None:
        return [Caveat("ok", f"No critical-difference diagram: {findings.ranks_missing}.")]
    ranks, alpha = findings.ranks, findings.config["alpha"]
    caveats = []
    if ranks.p_value > alpha:
        caveats.append(
            Caveat(
                "ok", f"Over {ranks.n_datasets} datasets mean ranks do not differ (Friedman p = {ranks.p_value:.2g})."
            )
        )
    if ranks.n_datasets < FEW_DATASETS:
        caveats.append(
            Caveat(
                "doubt", f"Mean ranks rest on {ranks.n_datasets} datasets only; Friedman's test then rarely rejects."
            )
        )
    return caveats
