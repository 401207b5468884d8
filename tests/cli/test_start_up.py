"""Start-up: a command imports what it uses and nothing else, since torch alone takes seconds to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from command import environment
from tiny import Bunch

HEAVY = ["torch", "transformers", "scipy", "optuna", "pandas", "altair", "numpy", "pydantic", "huggingface_hub"]
_RUN = """
import atexit, sys
heavy = sys.argv.pop(1).split(",")
atexit.register(lambda: print("loaded:", *[name for name in heavy if name in sys.modules], file=sys.stderr))
sys.argv[0] = "unspoiled"
from unspoiled.cli import main
main()
"""


def heavy_modules_after(program: str, *arguments: str | Path) -> list[str]:
    """Return those of HEAVY that a process of its own has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", program, ",".join(HEAVY), *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()[-1].removeprefix("loaded:").split()


def test_the_package_alone_imports_nothing() -> None:
    program = "import sys, unspoiled; print('loaded:', *[n for n in sys.argv[1].split(',') if n in sys.modules], "
    assert heavy_modules_after(program + "file=sys.stderr)") == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["merge", "--help"], ["run", "--help"]])
def test_help_is_answered_without_the_libraries_of_the_work(arguments: list[str]) -> None:
    assert heavy_modules_after(_RUN, *arguments) == []


def test_a_merge_imports_torch_and_no_model_library(bunch: Bunch, tmp_path: Path) -> None:
    """Also where the tokenizer is copied and the chat template chosen: all of that is files."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"merge_method: task_arithmetic\nbase_model: {bunch.base}\n"
        f"models:\n  - model: {bunch.full}\n    parameters: {{weight: 0.5}}\n"
        f"  - model: {bunch.base}+{bunch.aligned}\n    parameters: {{weight: 0.5}}\n"
    )
    loaded = heavy_modules_after(_RUN, "merge", recipe, tmp_path / "out", "--quiet")
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert set(loaded) == {"torch", "numpy", "pydantic"}
