"""Trees of token sequences, and the batches that keep together what begins alike."""

import random

from unspoiled.inference._segments import Segment, Tokens, batches, segment_tree, tree_size


def path(segments: list[Segment], end: int | None) -> Tokens:
    """Return the tokens from the beginning to the end of a segment, and check where each segment says it starts."""
    if end is None:
        return ()
    segment = segments[end]
    before = path(segments, segment.parent)
    assert segment.start == len(before)
    return before + segment.tokens


def test_a_tree_by_hand() -> None:
    """A system prompt of 4, one prompt with two responses that differ, a prompt of its own, and a stranger."""
    system, prompt = (1, 2, 3, 4), (5, 5, 5, 5)
    sequences = sorted([system + prompt + (6,), system + prompt + (7, 8), (*system, 9, 9), (2, 2)])
    segments, ends = segment_tree(sequences)
    assert {(s.tokens, s.start) for s in segments} == {
        (system, 0), (prompt, 4), ((6,), 8), ((7, 8), 8), ((9, 9), 4), ((2, 2), 0)
    }  # fmt: skip
    assert [path(segments, end) for end in ends] == sequences
    assert tree_size(sequences) == 4 + 4 + 1 + 2 + 2 + 2


def test_fewer_than_four_tokens_are_not_shared() -> None:
    assert tree_size([(1, 2, 3, 4), (1, 2, 3, 5)]) == 8
    assert tree_size([(1, 2, 3, 4, 4), (1, 2, 3, 4, 5)]) == 6


def test_any_sequences_are_in_their_tree() -> None:
    """Few different tokens, so that there are duplicates, beginnings of others, and branches of branches."""
    stream = random.Random(0)
    for _ in range(200):
        sequences = sorted(
            tuple(stream.choice((1, 1, 1, 2)) for _ in range(stream.randint(1, 30)))
            for _ in range(stream.randint(1, 40))
        )
        segments, ends = segment_tree(sequences)
        assert [path(segments, end) for end in ends] == sequences
        assert all(s.tokens and (s.parent is None or s.parent < i) for i, s in enumerate(segments))
        assert tree_size(sequences) <= sum(map(len, set(sequences)))


def test_a_tree_as_deep_as_it_is_long() -> None:
    """Each sequence begins the next: thousands of levels, no recursion."""
    sequences = [(1,) * length for length in range(4, 12_000, 4)]
    assert tree_size(sequences) == 11_996


def test_batches_keep_beginnings_together_and_to_their_size() -> None:
    stream = random.Random(1)
    prompts = [tuple(stream.randrange(90) for _ in range(20)) for _ in range(30)]
    sequences = [prompt + (100 + i,) * 5 for i in range(4) for prompt in prompts]
    stream.shuffle(sequences)
    found = batches(sequences, 200)
    assert sorted(index for batch in found for index in batch) == list(range(120))
    for batch in found:
        own = [sequences[index] for index in batch]
        assert own == sorted(own)
        assert tree_size(own) <= 200
    assert sum(tree_size([sequences[i] for i in batch]) for batch in found) < 30 * 40 + 20 * len(found)
    order = [sorted(sequences[i] for i in batch) for batch in found]
    again = batches(sequences[::-1], 200)
    assert [[sequences[::-1][i] for i in batch] for batch in again] == order, "whatever the order"
    assert batches([(1,) * 500], 200) == [[0]]
    assert batches([], 200) == []
