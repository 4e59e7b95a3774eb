"""Windows of long sequences: none too long, all of it covered, each token from where it lies most central."""

import numpy as np
import pytest

from seqmill.errors import UserError
from seqmill.inputs.windows import ERROR, FULL, TRUNCATE, WINDOW, Treatment

TEN = Treatment(WINDOW, 10, 3)


@pytest.mark.parametrize("treatment", [TEN, Treatment(WINDOW, 10, 0), Treatment(WINDOW, 7, 6), Treatment(WINDOW, 1, 0)])
@pytest.mark.parametrize("count", [1, 6, 7, 10, 11, 16, 17, 18, 24, 31, 100, 1_003])
def test_each_token_is_taken_from_the_window_in_which_it_lies_most_central(treatment, count):
    pieces = treatment.pieces(np.array([count]))
    windows = list(zip(pieces.start.tolist(), pieces.stop.tolist(), strict=True))
    assert all(0 < stop - start <= treatment.longest for start, stop in windows)
    shared = pieces.stop[:-1] - pieces.start[1:]
    assert (shared >= treatment.overlap).all()
    # No more windows than it takes.
    step = treatment.longest - treatment.overlap
    assert len(windows) == max(-(-(count - treatment.overlap) // step), 1) if count > treatment.longest else 1
    for token in range(count):
        distances = [abs(token + 0.5 - (a + b) / 2) if a <= token < b else np.inf for a, b in windows]
        kept = np.flatnonzero((pieces.kept_start <= token) & (token < pieces.kept_stop))
        assert kept.tolist() == [int(np.argmin(distances))]


def test_several_sequences_at_once_are_each_as_by_themselves():
    counts = np.array([31, 10, 24, 3])
    together = TEN.pieces(counts)
    assert together.numbers.tolist() == [4, 1, 3, 1]
    for number, count in enumerate(counts):
        alone, own = TEN.pieces(np.array([count])), slice(*together.begins[number : number + 2])
        for name in ("start", "stop", "kept_start", "kept_stop"):
            assert getattr(together, name)[own].tolist() == getattr(alone, name).tolist()
    assert together.kept_of_sequences.tolist() == counts.tolist()
    assert together.sequence.tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 3]


def test_short_sequences_stay_whole_and_truncated_ones_lose_their_end():
    counts = np.array([10, 3])
    assert TEN.pieces(counts).are_whole(counts)
    cut = Treatment(TRUNCATE, 5).pieces(counts)
    assert (cut.stop.tolist(), cut.kept_of_sequences.tolist()) == ([5, 3], [5, 3])
    assert not cut.are_whole(counts)
    assert Treatment().pieces(counts).are_whole(counts)
    assert TEN.pieces(np.array([], dtype=np.int64)).begins.tolist() == [0]


def test_the_settings_follow_what_the_model_was_trained_on():
    assert Treatment.of(FULL, 100, 10, 1022) == Treatment()
    assert Treatment.of(WINDOW, None, None, 1022) == Treatment(WINDOW, 1022, 255)
    assert Treatment.of(WINDOW, 100, 0, 1022) == Treatment(WINDOW, 100, 0)
    assert Treatment.of(TRUNCATE, None, 77, 512) == Treatment(TRUNCATE, 512)
    with pytest.raises(UserError, match=r"sequences\.overlap is 100 and windows have 100 at most"):
        Treatment.of(WINDOW, 100, 100, 1022)


def test_what_the_fingerprint_has_tells_them_apart():
    treatments = [Treatment(), TEN, Treatment(WINDOW, 10, 4), Treatment(TRUNCATE, 10), Treatment(TRUNCATE, 11)]
    assert len({treatment.name for treatment in treatments}) == len(treatments)
    assert [Treatment.read(treatment.name) for treatment in treatments] == treatments
    # What is refused changes nothing of what is not.
    assert Treatment(ERROR, 10).name == Treatment().name == "full"


def test_windows_cost_what_their_tokens_do():
    def cost(lengths):
        return lengths * (1.0 + lengths)

    lengths = np.array([25, 10, 4])
    assert TEN.cost(cost, lengths).tolist() == [4 * 110, 110, 20]
    assert Treatment(TRUNCATE, 5).cost(cost, lengths).tolist() == [30, 30, 20]
    assert Treatment().cost(cost, lengths).tolist() == cost(lengths).tolist()
    # Of a model with tokens of several letters: 12.5 tokens of two letters are two windows.
    assert TEN.cost(cost, lengths, 2.0).tolist() == [2 * 420, 110, 20]
