"""A checkpoint with a merged vocabulary, from the models on disk to transformers' logits."""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import tiny_base
from unspoiled.checkpoints import (
    CheckpointWriter,
    ModelRef,
    embedding_names,
    finish_checkpoint,
    merge_vocabularies,
    open_model,
    write_tokenizer,
)


def with_tokens(base: Path, path: Path, tokens: list[str]) -> Path:
    """Save a base with control tokens added, as fine-tuning on a new chat format does."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"extra_special_tokens": tokens})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_all_of_one_expert_in_the_union_is_the_expert(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", seed=1, tie=False)
    paths = {
        "base": base,
        "one": with_tokens(tiny_base(tmp_path / "o", seed=2, tie=False), tmp_path / "one", ["<a>"]),
        "two": with_tokens(tiny_base(tmp_path / "t", seed=3, tie=False), tmp_path / "two", ["<b>", "<c>"]),
    }
    models = {name: open_model(ModelRef(str(path))) for name, path in paths.items()}
    vocabulary = merge_vocabularies(models, base="base", source="union", pad_to_multiple_of=8)
    two, staging = models["two"], tmp_path / "merged"
    staging.mkdir()
    by_token = embedding_names(two.tensors)
    tensors = {
        name: vocabulary.embedding_rows(
            0, vocabulary.rows, lambda model, ids, name=name: models[model].read(name)[ids]
        )["two"]
        if name in by_token
        else two.read(name)
        for name in two.tensors
    }
    layout = {name: (torch.float32, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with CheckpointWriter(staging, layout) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    write_tokenizer(vocabulary, staging)
    config = vocabulary.config(two.checkpoint.config, models[vocabulary.donor].checkpoint.config)
    source = replace(two, checkpoint=replace(two.checkpoint, config=config))
    finish_checkpoint(staging, source=source, dtype=torch.float32, recipe_yaml="", tokenizer=staging)

    merged, tokenizer = AutoModelForCausalLM.from_pretrained(staging), AutoTokenizer.from_pretrained(staging)
    expert, its_tokenizer = (
        AutoModelForCausalLM.from_pretrained(paths["two"]),
        AutoTokenizer.from_pretrained(paths["two"]),
    )
    assert merged.get_input_embeddings().weight.shape[0] == merged.config.vocab_size == 304
    assert tokenizer.get_vocab() == vocabulary.token_ids
    text = "<|im_start|>How do <b>I bake<c><|im_end|>"
    ids, its_ids = (
        torch.tensor([each(text, add_special_tokens=False)["input_ids"]]) for each in (tokenizer, its_tokenizer)
    )
    assert tokenizer.convert_ids_to_tokens(ids[0]) == its_tokenizer.convert_ids_to_tokens(its_ids[0])
    order = [vocabulary.token_ids[token] for token, _ in sorted(its_tokenizer.get_vocab().items(), key=lambda i: i[1])]
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits[..., order], expert(its_ids).logits)
