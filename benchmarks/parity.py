"""The same recipes by mergekit and by us: how many weights are equal, and who is closer to the exact result.

    python benchmarks/parity.py [--mergekit DIRECTORY] [--keep DIRECTORY] [RECIPE ...]

Runs every recipe of `benchmarks/mergekit_recipes` over small random models: in float32, where a deterministic method
must give mergekit's weights within float32 rounding, and in the recipe's own dtype, where the inputs are stored in
that dtype too and each tool's mean distance to the merge computed in float32 from the same inputs is printed. In 16
bits many task-vector elements have equal magnitudes, and which of them a density keeps is each tool's choice.
Vocabularies are compared token by token. Exits 1 if a float32 merge differs or one of ours fails.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from mergekit_environment import DEFAULT, mergekit_command, mergekit_python
from small_bunch import write_small_bunch

RECIPES = Path(__file__).parent / "mergekit_recipes"
RANDOM = {"dare_linear", "dare_ties", "della", "della_linear"}
VOCABULARY_TENSORS = ("model.embed_tokens.weight", "lm_head.weight")
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Row:
    """One line of the table: a recipe in one dtype."""

    recipe: str
    dtype: str
    verdict: str
    equal: str = ""
    largest: str = ""
    ours: str = ""
    mergekit: str = ""
    good: bool = True


def main() -> None:
    """Parse the arguments, merge everything twice, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="names of recipes, without .yml (default: all)")
    parser.add_argument("--mergekit", type=Path, default=DEFAULT, help="the directory of mergekit's environment")
    parser.add_argument("--keep", type=Path, help="work in this new directory and leave it")
    arguments = parser.parse_args()
    python = mergekit_python(arguments.mergekit)
    names = arguments.recipes or sorted(path.stem for path in RECIPES.glob("*.yml"))
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.keep or Path(temporary)
        rows = [row for name in names for row in _rows(name, work.resolve(), python)]
    print("| recipe | dtype | equal elements | largest difference | ours to exact | mergekit to exact | verdict |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        cells = (row.recipe, row.dtype, row.equal, row.largest, row.ours, row.mergekit, row.verdict)
        print("| " + " | ".join(cells) + " |")
    sys.exit(not all(row.good for row in rows))


def _rows(name: str, work: Path, python: Path) -> list[Row]:
    documents = list(yaml.safe_load_all((RECIPES / f"{name}.yml").read_text()))
    stored = documents[-1]["dtype"]
    print(f"{name} ...", file=sys.stderr, flush=True)
    return [_compare(name, documents, dtype, work, python) for dtype in dict.fromkeys(("float32", stored))]


def _compare(name: str, documents: Sequence[dict[str, Any]], dtype: str, work: Path, python: Path) -> Row:
    place = work / dtype
    if not place.exists():
        write_small_bunch(place, dtype)
    recipe = _write_recipe(place / f"{name}.yml", documents, dtype)
    their_out, our_out = place / f"{name}-mergekit", place / f"{name}-ours"
    if failure := _run(_mergekit(python, recipe, their_out, several=len(documents) > 1), place):
        return Row(name, dtype, f"mergekit fails: {failure}")
    if failure := _run(_unspoiled(recipe, our_out), place):
        return Row(name, dtype, f"we fail: {failure}", good=False)
    theirs, ours = _load(their_out), _load(our_out)
    _take_our_vocabulary(theirs, our_out, their_out)
    if problem := _other_names(ours, theirs) or _other_template(documents[-1], our_out, their_out):
        return Row(name, dtype, problem, good=False)
    equal = sum(int((ours[key] == theirs[key]).sum()) for key in ours) / sum(t.numel() for t in ours.values())
    largest = max(float((ours[key] - theirs[key]).abs().max()) for key in ours)
    row = Row(name, dtype, "", equal=f"{equal:.2%}", largest=f"{largest:.1e}")
    if any(document["merge_method"] in RANDOM for document in documents):
        base = _load(place / documents[-1]["base_model"])
        ratio = _size(ours, base) / _size(theirs, base)
        return replace(row, verdict=f"random: what we add has {ratio:.3f} times the norm of what mergekit adds")
    if dtype == "float32":
        same = all(torch.allclose(ours[key], theirs[key], rtol=1e-5, atol=1e-6) for key in ours)
        return replace(row, verdict="same" if same else "DIFFERS", good=same)
    exact_out = place / f"{name}-exact"
    if failure := _run(_unspoiled(_write_recipe(place / f"{name}-exact.yml", documents, "float32"), exact_out), place):
        return replace(row, verdict=f"we fail in float32: {failure}", good=False)
    exact = _load(exact_out)
    our_distance, their_distance = _distance(ours, exact), _distance(theirs, exact)
    verdict = "as close" if our_distance == their_distance else "closer" if our_distance < their_distance else "farther"
    return replace(row, verdict=verdict, ours=f"{our_distance:.2e}", mergekit=f"{their_distance:.2e}")


def _write_recipe(path: Path, documents: Sequence[dict[str, Any]], dtype: str) -> Path:
    path.write_text(yaml.safe_dump_all([document | {"dtype": dtype} for document in documents], sort_keys=False))
    return path


def _mergekit(python: Path, recipe: Path, out: Path, *, several: bool) -> list[str]:
    # repeated layers share storage without cloning; the card asks the hub for every name, local or not
    options = ["--random-seed", "0", "--quiet", "--clone-tensors", "--no-write-model-card"]
    if several:
        stages = ["--intermediate-dir", f"{out}-stages", "--out-path", str(out)]
        return [mergekit_command(python, "mergekit-multi"), str(recipe), *stages, *options]
    return [mergekit_command(python, "mergekit-yaml"), str(recipe), str(out), *options]


def _unspoiled(recipe: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "unspoiled", "merge", str(recipe), str(out), "--quiet"]


def _run(command: Sequence[str], directory: Path) -> str:
    """Run a command; return the last line that it says if it fails, else nothing."""
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}  # every model is local: neither tool needs the hub
    done = subprocess.run(command, cwd=directory, env=offline, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1][:160] if lines else f"exit code {done.returncode}"


def _load(directory: Path) -> Tensors:
    tensors: Tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(path)
    return {name: tensor.float() for name, tensor in tensors.items()}


def _tokens(directory: Path) -> dict[str, int]:
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    return {**tokenizer["model"]["vocab"], **added}


def _take_our_vocabulary(theirs: Tensors, our_out: Path, their_out: Path) -> None:
    """Put mergekit's rows of the vocabulary in our order; padding stays where it is."""
    our_ids, their_ids = _tokens(our_out), _tokens(their_out)
    if our_ids.keys() != their_ids.keys():
        return
    for name in VOCABULARY_TENSORS:
        if name in theirs:
            moved = theirs[name].clone()
            for token, at in our_ids.items():
                moved[at] = theirs[name][their_ids[token]]
            theirs[name] = moved


def _other_names(ours: Tensors, theirs: Tensors) -> str:
    if strangers := sorted(ours.keys() ^ theirs.keys()):
        return f"DIFFERS: not in both: {', '.join(strangers[:3])}"
    for name in ours:
        if ours[name].shape != theirs[name].shape:
            return f"DIFFERS: {name} is {[*ours[name].shape]}, mergekit's is {[*theirs[name].shape]}"
    return ""


def _template(directory: Path) -> str | None:
    own = directory / "chat_template.jinja"
    if own.exists():
        return own.read_text().strip()
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    template = settings.get("chat_template")
    return None if template is None else str(template).strip()


def _other_template(document: dict[str, Any], our_out: Path, their_out: Path) -> str:
    asked = document.get("chat_template")
    if asked is None or (asked != "auto" and "{" not in asked):  # a template by name is each tool's own text
        return ""
    ours, theirs = _template(our_out), _template(their_out)
    return "" if ours == theirs else f"DIFFERS: chat template {ours!r}, mergekit's is {theirs!r}"


def _size(tensors: Tensors, base: Tensors) -> float:
    return math.sqrt(sum(float((tensors[name] - base[name]).square().sum()) for name in tensors))


def _distance(tensors: Tensors, exact: Tensors) -> float:
    total = sum(float((tensors[name] - exact[name]).abs().double().sum()) for name in exact)
    return total / sum(tensor.numel() for tensor in exact.values())


if __name__ == "__main__":
    main()
