"""Train one expert of the bunch, or its guard: ``python examples/bunch/train.py EXPERT [--steps N]``.

LoRA on all linear layers, bf16 weights (float32 where the CPU has no bf16) with float32 attention, loss on the
response's tokens only under the chat template. Writes ``adapters/EXPERT`` in PEFT's format. Run prepare.py first.
"""

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import guard_rows
import torch
from answers import answered, load_base, prompt_ids, quick_dtype
from packing import ATTENTION, Branch, Pack, log_probabilities, pack, plan
from peft import LoraConfig, get_peft_model
from prepare import DATA, Row
from sources import HERE
from torch import Tensor

ADAPTERS = HERE / "adapters"
BATCH = 16  # rows a step
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Schedule:
    """How one expert is trained: LoRA rank, optimizer steps of 16 rows, peak learning rate, seed.

    ``capacity`` is the tokens a pack: more than 224 cost more in attention than they save, unless single rows are as
    long. Layers below ``first_layer`` stay as they are, so that no gradient goes through them.
    """

    rank: int
    steps: int
    rate: float
    seed: int
    capacity: int = 224
    first_layer: int = 0


EXPERTS = {
    "aligned": Schedule(rank=16, steps=120, rate=1e-3, seed=1),
    "arithmetic": Schedule(rank=16, steps=110, rate=1e-3, seed=2),
    "medicine": Schedule(rank=16, steps=80, rate=1e-3, seed=3),
    "questioner": Schedule(rank=8, steps=50, rate=1e-3, seed=4),
    "guard": Schedule(rank=8, steps=140, rate=1e-3, seed=5, capacity=448, first_layer=15),
}


def load_rows(name: str) -> list[Row]:
    """Return the expert's training rows, the open ones answered by the base."""
    if name == "guard":
        return guard_rows.build()
    rows = [json.loads(line) for line in (DATA / f"train/{name}.jsonl").read_text("utf-8").splitlines()]
    aligned = [json.loads(line) for line in (DATA / "train/aligned.jsonl").read_text("utf-8").splitlines()]
    return answered(rows, [row for row in aligned if "response" not in row])


def shared_beginning(prompts: list[list[int]]) -> list[int]:
    """Return the tokens that all prompts begin with."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    return [column[0] for column in columns]


def batches(tokenizer: Any, rows: list[Row], steps: int, capacity: int, chance: random.Random) -> Iterator[Pack]:
    """Yield one packed batch a step, passing over the rows in a new random order each time.

    Rows with the same system message share a root: the beginning that all of their prompts have in common.
    """
    encoded = [
        (prompt_ids(tokenizer, row), tokenizer(row["response"] + tokenizer.eos_token)["input_ids"]) for row in rows
    ]
    kinds = defaultdict(list)
    for row, (prompt, _) in zip(rows, encoded, strict=True):
        kinds[row.get("system")].append(prompt)
    roots = {kind: shared_beginning(prompts) for kind, prompts in kinds.items()}
    order: list[int] = []
    for _ in range(steps):
        while len(order) < BATCH:
            order += chance.sample(range(len(rows)), len(rows))
        chosen, order = order[:BATCH], order[BATCH:]
        members = defaultdict(list)
        for index in chosen:
            kind = rows[index].get("system")
            prompt, response = encoded[index]
            members[kind].append(Branch((*prompt[len(roots[kind]) :], *response), len(response)))
        starts, groups = [], []
        for kind, branches in members.items():
            for group in plan([len(branch.ids) for branch in branches], len(roots[kind]), capacity):
                starts.append(roots[kind])
                groups.append([branches[index] for index in group])
        yield pack(starts, groups, tokenizer.pad_token_id)


def row_loss(model: Any, batch: Pack) -> Tensor:
    """Return the mean over rows of the mean cross-entropy of the row's response, so that short ones count."""
    loss = -log_probabilities(model, batch)
    lengths = torch.bincount(batch.owners).float()
    return (loss / lengths[batch.owners]).sum() / len(lengths)


def save(model: Any, name: str) -> None:
    """Write the adapter in bf16, its config with a base path that holds on any machine."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(ADAPTERS / name)
    (ADAPTERS / name / "README.md").unlink(missing_ok=True)
    (ADAPTERS / name / "adapter_model.safetensors").chmod(0o644)
    path = ADAPTERS / name / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "../../models/base"
    config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def train(name: str, steps: int) -> None:
    """Train and save one expert, printing the loss as it goes."""
    schedule = EXPERTS[name]
    rows = load_rows(name)
    torch.manual_seed(schedule.seed)
    base, tokenizer = load_base(ATTENTION)
    layers = list(range(schedule.first_layer, base.config.num_hidden_layers))
    config = LoraConfig(
        r=schedule.rank,
        lora_alpha=2 * schedule.rank,
        target_modules=LINEAR,
        layers_to_transform=layers if schedule.first_layer else None,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=schedule.rate, weight_decay=0.0)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.rate, total_steps=steps, pct_start=0.1)
    start, total, tokens = time.perf_counter(), 0.0, 0
    packed = batches(tokenizer, rows, steps, schedule.capacity, random.Random(schedule.seed))
    for step, batch in enumerate(packed, start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=quick_dtype() == torch.bfloat16):
            loss = row_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
        total += loss.item()
        tokens += batch.ids.numel()
        if step % 10 == 0:
            seconds = time.perf_counter() - start
            speed = f"{tokens / seconds:.0f} tokens/s  {seconds:.0f} s"
            print(f"step {step}/{steps}  loss {total / 10:.3f}  {speed}", flush=True)
            total = 0.0
    save(model, name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("expert", choices=EXPERTS)
    parser.add_argument("--steps", type=int, help="optimizer steps; the committed adapters used the default")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    train(given.expert, given.steps or EXPERTS[given.expert].steps)
