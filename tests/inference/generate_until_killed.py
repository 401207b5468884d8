"""Generate again and again, and kill it: `python generate_until_killed.py MODEL LOG`.

For each line `SAMPLES SECONDS` on stdin, a new process begins or continues to write the samples; after it has said of
so many that they are kept, and after the seconds, it is sent SIGKILL. One line on stdout says so. The processes are
forked from this one, which has no model and no thread: importing everything takes longer than all samples.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401

import unspoiled.inference.kept as kept_module
from unspoiled.inference import Generator, Prompt, Sample, TransformersBackend, load_chat_template, load_model
from unspoiled.inference.kept import KeptGenerator

PROMPTS = [Prompt(f"What is {i} times {j}?" + " Why?" * (i % 4)) for i in range(16) for j in range(8)]
WANTED = {"max_new_tokens": 24, "temperature": 1.0, "seed": 3}


def opened(model: str) -> Generator:
    torch.set_num_threads(1)
    directory = Path(model)
    return TransformersBackend(load_model(directory, dtype=torch.float32), load_chat_template(directory), batch_size=6)


def kept(model: str, log: Path) -> KeptGenerator:
    return KeptGenerator(log, model=model, open=lambda: opened(model))


def write(model: str, log: Path, report: int) -> None:
    def told(position: int, sample: Sample) -> None:
        os.write(report, b".")

    kept_module._FLUSHING_SHARE = 1.0  # however slow the disk is, there are flushes enough to be killed between
    kept(model, log).generate(PROMPTS, **WANTED, on_sample=told)


def main(model: str, log: Path) -> None:
    for line in sys.stdin:
        samples, seconds = line.split()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write(model, log, writing)
            finally:
                os._exit(0)
        os.close(writing)
        for _ in range(int(samples)):
            os.read(reading, 1)
        time.sleep(float(seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reading)
        print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
