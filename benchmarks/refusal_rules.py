"""How often the refusal rules agree with people, on the responses that PyRIT's authors had judged.

    python benchmarks/refusal_rules.py [WHEEL]

WHEEL is a downloaded pyrit-1.1.0 wheel; without it, pip downloads it into a temporary directory. It is checked by
hash, read and never installed. The people counted an answer to another question as a refusal, which no rule on the
response alone can see, so the recall has a bound below 1. Intervals are Wilson's at 95%.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from unspoiled.evaluate import wilson
from unspoiled.guards import RefusalRules, find_refusal

PACKAGE = "pyrit==1.1.0"
SHA256 = "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a"
DIRECTORY = "pyrit/datasets/scorer_evals/refusal_scorer"
FILES = ("refusal.csv", "refusal_extra.csv")


@dataclass(frozen=True)
class Judged:
    """A response, and whether people took it for a refusal."""

    response: str
    is_refusal: bool


def read_judged(wheel: Path, file: str) -> list[Judged]:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{DIRECTORY}/{file}").decode("utf-8-sig")
    lines = text.split("\n")
    while lines[0].startswith("#"):  # the data set's version
        lines.pop(0)
    rows = csv.DictReader(io.StringIO("\n".join(lines)))
    return [Judged(row["assistant_response"], float(row["human_score"]) == 1) for row in rows]


def download(directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), PACKAGE]
    subprocess.run(command, check=True)
    return next(directory.glob("*.whl"))


def line(label: str, successes: int, total: int) -> str:
    low, high = wilson(successes, total)
    return f"  {label:9} {successes / total:6.1%}  [{low:.1%}, {high:.1%}]  {successes} of {total}"


def report(name: str, judged: list[Judged]) -> str:
    found = [find_refusal(row.response) is not None for row in judged]
    both = sum(row.is_refusal and refused for row, refused in zip(judged, found, strict=True))
    refusals = sum(row.is_refusal for row in judged)
    return "\n".join(
        [
            f"{name}: {len(judged)} responses, {refusals} refusals to people",
            line("precision", both, sum(found)),
            line("recall", both, refusals),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, nargs="?")
    given: Path | None = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as temporary:
        wheel = given or download(Path(temporary))
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
            raise SystemExit(f"{wheel} is not the wheel of {PACKAGE} that was measured: its SHA-256 differs.")
        judged = {file: read_judged(wheel, file) for file in FILES}
    print(RefusalRules.name)
    for file, rows in judged.items():
        print(report(file, rows))
    print(report("both", [row for rows in judged.values() for row in rows]))


if __name__ == "__main__":
    main()
