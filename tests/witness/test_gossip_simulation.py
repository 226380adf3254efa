from __future__ import annotations

import math
import statistics
from functools import partial
from pathlib import Path

import pytest

from tests.witness.simulation import split_view, virtually
from tlog.witness.limits import GossipLimits

LIMITS = GossipLimits(interval=30.0, fanout=2)


@pytest.mark.parametrize("degree", [None, 8])
def test_every_honest_witness_learns_of_a_split_view_in_log_n_rounds(
    tmp_path: Path, degree: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # 35 disks, of which none fails here
    outcomes = []
    for seed in range(8):
        run = partial(split_view, tmp_path, seed=seed, degree=degree, limits=LIMITS)
        outcomes.append(virtually(run))
    rounds = [outcome.rounds for outcome in outcomes]
    assert statistics.median(rounds) <= 1.5 * math.log2(50), rounds
    assert max(rounds) <= 2 * math.log2(50), rounds
    # Old heads that liars replay: one proof each, of a log that answers.
    assert max(outcome.proofs for outcome in outcomes) <= 3
