"""mergekit in a virtual environment of its own, for the benchmarks that run beside it.

    python benchmarks/mergekit_environment.py [--at DIRECTORY]

Makes the environment where there is none yet, and prints its interpreter. mergekit is run, never imported: it has
a licence and dependencies of its own.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path

DEFAULT = Path(__file__).parent / ".mergekit"
MERGEKIT = "mergekit==0.1.5"
TORCH = "torch==2.13.0"


def main() -> None:
    """Parse the arguments, print the interpreter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=Path, default=DEFAULT, help="the environment's directory")
    print(mergekit_python(parser.parse_args().at))


def mergekit_python(at: Path = DEFAULT) -> Path:
    """Return the interpreter of mergekit's environment, which is made first where it is missing.

    Args:
        at: The environment's directory; one that has mergekit is used as it is, in whatever version.

    Raises:
        SystemExit: mergekit could not be installed, or does not start.
    """
    python = at.resolve() / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if _starts(python):
        return python
    print(f"installing {MERGEKIT} in {at} (some minutes)", file=sys.stderr)
    venv.create(at, with_pip=True, clear=True)
    if shutil.which("nvidia-smi") is None:
        _install(python, TORCH)  # the torch that the benchmarks were made with; with a GPU, pip picks one that fits it
    _install(python, MERGEKIT)
    if not _starts(python):
        raise SystemExit(f"mergekit does not start in {at}: see what `{python} -m mergekit.scripts.run_yaml` says.")
    return python


def mergekit_command(python: Path, name: str) -> str:
    """Return the path of one of mergekit's commands, such as `mergekit-yaml`."""
    return str(python.parent / name)


def _install(python: Path, package: str) -> None:
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", package], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise SystemExit(f"could not install {package}: pip's message is above. Is a package index within reach?")


def _starts(python: Path) -> bool:
    if not python.exists():
        return False
    run = subprocess.run([python, "-c", "import mergekit.config"], capture_output=True, check=False)
    return run.returncode == 0


if __name__ == "__main__":
    main()
