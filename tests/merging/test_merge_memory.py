"""What `unspoiled merge` takes beside the interpreter: set by --memory and the blocks, not by the model's size."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from command import environment, unspoiled

WIDTH = 512
BLOCK = 2**19  # elements that are merged at a time

# Runs a command as `unspoiled` does, once what every merge imports is there, and prints how far its own memory
# (pages of files aside, which the system takes back when it wants) rose above that, in KB.
SCRIPT = """
import sys, threading, time
from pathlib import Path
import torch
import unspoiled.merging, unspoiled.cli._console, rich.console
torch.ones(8).mul(2)

def own():
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line[:7] == "RssAnon").split()[1])

start = peak = own()
done = threading.Event()
def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, own())
thread = threading.Thread(target=watch)
thread.start()
from unspoiled.cli import main
try:
    main()
finally:
    done.set()
    thread.join()
    print(peak - start, file=sys.stderr)
"""  # noqa: E501  one line of the script


def raw_model(path: Path, seed: int, layers: int) -> Path:
    """Save a model of matrices of 2^20 elements in bf16, eight to a layer."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"model.layers.{layer}.mlp.{number}.weight": torch.randn(2048, WIDTH, generator=generator).bfloat16()
        for layer in range(layers)
        for number in range(8)
    }
    save_file(tensors, path)
    return path


def recipe(place: Path, method: str, models: list[Path]) -> Path:
    base = "" if method == "linear" else f"base_model: {models[0]}\n"
    more = "" if method == "linear" else ", density: 0.5"
    listed = "".join(f"  - {{model: {model}, parameters: {{weight: 0.5{more}}}}}\n" for model in models[1:])
    (place / "recipe.yaml").write_text(f"merge_method: {method}\n{base}models:\n{listed}")
    return place / "recipe.yaml"


def peak(place: Path, out: str, *options: str) -> int:
    """Return what the merge of `place`'s recipe takes at most, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "merge", place / "recipe.yaml", place / out, "--quiet", *options],
        env=environment() | {"MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stderr.splitlines()[-1]) * 1024


@pytest.mark.slow
@pytest.mark.parametrize("method", ["linear", "ties"])
def test_a_larger_model_takes_no_more_memory(tmp_path: Path, method: str) -> None:
    """Of 17 and 134 million parameters. At a time, two threads hold one block of each input, twice (as it is stored
    and in float32), and what the method makes of them: 2·inputs + 6 blocks in all.
    """
    found = {}
    for name, layers in (("small", 2), ("large", 16)):
        (tmp_path / name).mkdir()
        models = [raw_model(tmp_path / name / f"{seed}.safetensors", seed, layers) for seed in range(3)]
        recipe(tmp_path / name, method, models)
        found[name] = peak(tmp_path / name, "out", "--threads", "2")
    bound = 2 * (2 * 2 + 6) * BLOCK * 4 + 24 * 2**20
    assert found["large"] <= bound
    assert found["large"] <= found["small"] + 16 * 2**20, "eight times the model, and no more than noise"
    assert found["large"] < 16 * 8 * 2048 * WIDTH * 2 / 2, "not half of one model"


@pytest.mark.parametrize(("option", "said"), [("1MB", "1 MiB"), ("10MiB", "10 MiB")])
def test_a_block_that_is_too_large_is_named(tmp_path: Path, option: str, said: str) -> None:
    models = [raw_model(tmp_path / f"{seed}.safetensors", seed, 1) for seed in range(3)]
    text = recipe(tmp_path, "ties", models)
    done = unspoiled("merge", text, tmp_path / "out", "--memory", option, "--quiet")
    assert done.code == 7
    assert done.err.startswith("Error: merging 'model.layers.0.mlp.")
    assert re.search(
        rf"\[2048, {WIDTH}\] by 'ties' takes \d\d MiB, more than the {said} allowed. Raise --memory.", done.err
    )
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.iterdir())) == 4, "the inputs and the recipe"
