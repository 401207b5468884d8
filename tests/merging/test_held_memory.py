"""What a merge has used it lets go of: the memory it reckons with holds nothing of the tensors before."""

from pathlib import Path

import torch

from tiny import tiny_base, tiny_expert
from unspoiled.config import parse_recipe
from unspoiled.merging import MergePlan, Models
from unspoiled.merging._embeddings import MappedInput
from unspoiled.merging._singular import singular


def test_a_mapped_embedding_keeps_no_rows_that_every_model_has_got(tmp_path: Path) -> None:
    base, other = tiny_base(tmp_path / "base"), tiny_base(tmp_path / "other", seed=1, vocab_size=290)
    expert = tiny_expert(base, tmp_path / "expert", seed=2)
    wanted = parse_recipe(
        f"merge_method: ties\nbase_model: {base}\nparameters: {{weight: 1, density: 0.5}}\n"
        f"models: [{{model: {expert}}}, {{model: {other}}}]\ntokenizer_source: union\n",
        "recipe.yml",
    )
    embedding = MergePlan(wanted, Models.open([wanted], tmp_path)).tensors["model.embed_tokens.weight"]
    assert isinstance(embedding.base, MappedInput)
    first, again = embedding.merged(), embedding.merged()
    assert torch.equal(first, again)
    assert not any(embedding.base.embedding._last.values())


def test_leading_directions_let_go_of_the_whole_decomposition() -> None:
    """TSV-M keeps 1/N of each of N decompositions; as views they would keep all of each."""
    part = singular(torch.arange(64.0).reshape(8, 8).sin()).leading(2)
    assert [t.untyped_storage().nbytes() for t in (part.u, part.values, part.v)] == [4 * 16, 4 * 2, 4 * 16]
