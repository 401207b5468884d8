"""Names of models: a local directory or safetensors file, or a hub id, with a revision, with a LoRA adapter on top."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from unspoiled.errors import CheckpointError, ConfigError

_HUB_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt", "README.md"]
"""What a merge needs: weights, configs, tokenizer, chat template, and the card, which states the license. Never
pickles, never code."""

_HUB_IGNORED = ["*/*", "consolidated*.safetensors"]


@dataclass(frozen=True)
class ModelRef:
    """The name of one model of the bunch: `PATH`, `HUB/ID`, `HUB/ID@REVISION`, each with `+ADAPTER`.

    Attributes:
        path: A local directory, a local `.safetensors` file, or a hub id.
        revision: A branch, tag or commit of a hub id; None for the default branch and for local models.
        adapter: The LoRA adapter to read on top, itself a directory or a hub id.
    """

    path: str
    revision: str | None = None
    adapter: "ModelRef | None" = None

    @classmethod
    def parse(cls, text: str, *, relative_to: Path | None = None) -> Self:
        """Read a model's name as recipes and the command line write it; `str(ref)` is the inverse.

        `+` and `@` separate, except inside the name of a directory or file that exists.

        Args:
            text: `PATH`, `HUB/ID`, `HUB/ID@REVISION`, or two of them as `BASE+ADAPTER`.
            relative_to: The directory that relative paths start from (the recipe's); the result then holds
                absolute paths. None leaves paths as written, relative to the working directory.

        Raises:
            ConfigError: a part is empty.
        """
        text = text.strip()
        base, adapter = _split_adapter(text, relative_to)
        if adapter is None:
            return cls._parse_part(base, relative_to, whole=text)
        part = cls._parse_part(base, relative_to, whole=text)
        return cls(part.path, part.revision, cls._parse_part(adapter, relative_to, whole=text))

    @classmethod
    def _parse_part(cls, text: str, relative_to: Path | None, *, whole: str) -> Self:
        text = text.strip()
        path, revision = text, None
        if "@" in text and not _local(text, relative_to).exists():
            path, _, revision = text.partition("@")
        if not path or revision == "":
            raise ConfigError(
                f"Model name {whole!r} has an empty part. "
                "Write a directory, HUB/ID or HUB/ID@REVISION, with +ADAPTER for a LoRA adapter on it."
            )
        if relative_to is not None and (looks_local(path, relative_to) or _local(path, relative_to).exists()):
            path = str(_local(path, relative_to))
        return cls(path, revision)

    @property
    def public_name(self) -> str:
        """What strangers may read: of an absolute path the last part alone, of a model with an adapter the adapter."""
        path = (self.adapter or self).path
        return Path(path).name if Path(path).is_absolute() else path

    def __str__(self) -> str:
        text = self.path if self.revision is None else f"{self.path}@{self.revision}"
        return text if self.adapter is None else f"{text}+{self.adapter}"


def looks_local(path: str, relative_to: Path | None = None) -> bool:
    """Tell whether a name can only be a path: a hub id has at most one slash and no directory before it."""
    if path.startswith(("/", "./", "../", "~")) or path in {".", ".."} or path.count("/") > 1:
        return True
    if path.endswith(".safetensors"):
        return True
    head, slash, _ = path.partition("/")
    return bool(slash) and _local(head, relative_to).is_dir()


def locate(ref: ModelRef) -> Path:
    """Return the local directory or file of `ref` (not of its adapter), downloading it if it is a hub id.

    A download takes safetensors, JSON, tokenizer and template files only, and is kept in the hub's cache.

    Raises:
        CheckpointError: a path that doesn't exist (a mistyped path is never tried on the hub), a revision
            given for a local model, or a download that failed.
    """
    local = _local(ref.path, None)
    if local.exists():
        if ref.revision is not None:
            kind = "directory" if local.is_dir() else "file"
            raise CheckpointError(
                f"{str(ref)!r}: a {kind} has no revisions. Remove {'@' + ref.revision!r} or name a hub id."
            )
        return local
    if looks_local(ref.path):
        raise CheckpointError(
            f"{ref.path!r} does not exist (looked in {local.absolute().parent}). "
            "Correct the path; a hub id has the form ORGANISATION/NAME."
        )
    return _download(ref)


def _download(ref: ModelRef) -> Path:
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                ref.path, revision=ref.revision, allow_patterns=_HUB_PATTERNS, ignore_patterns=_HUB_IGNORED
            )
        )
    except Exception as error:  # the hub's errors have no common base; all mean the same here
        raise CheckpointError(
            f"{str(ref)!r} is no local directory, and downloading it from the hub failed "
            f"({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}). "
            "Check the id, the revision, the network, and `hf auth login` for gated models."
        ) from error


def _local(path: str, relative_to: Path | None) -> Path:
    local = Path(path).expanduser() if path.startswith("~") else Path(path)
    return local if relative_to is None else relative_to.absolute() / local


def _split_adapter(text: str, relative_to: Path | None) -> tuple[str, str | None]:
    """Split at the `+` whose sides exist, or else at the last one."""
    positions = [index for index, character in enumerate(text) if character == "+"]
    if not positions or _local(text, relative_to).exists():
        return text, None

    def existing_sides(position: int) -> int:
        sides = (text[:position].strip(), text[position + 1 :].strip())
        return sum(bool(side) and _local(side, relative_to).exists() for side in sides)

    best = max(positions, key=lambda position: (existing_sides(position), position))
    return text[:best], text[best + 1 :]
