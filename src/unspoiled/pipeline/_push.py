"""A run's merged checkpoint, its card and its results on the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unspoiled.checkpoints import RECIPE_NAME, TOKENIZER_FILES, checkpoint_hash, read_manifest, verify_manifest
from unspoiled.errors import ConfigError, RunDirectoryError, ServerError
from unspoiled.evaluate import Results
from unspoiled.files import MANIFEST_NAME
from unspoiled.pipeline._push_notes import notes

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_BESIDE = ("results.json", "report.html")
"""What goes with the checkpoint from the run directory, where it is there."""

_WEIGHTS = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".onnx_data"),
    *(".h5", ".msgpack", ".ot", ".index.json"),
)
"""How the names of weights, and of their indexes, end in whatever format: an old one could be loaded for the new."""

_CHECKPOINT_FILES = frozenset(
    {"README.md", "config.json", "generation_config.json", "adapter_config.json", "params.json", "tekken.json"}
    | {RECIPE_NAME, MANIFEST_NAME, *TOKENIZER_FILES, *_BESIDE}
)


@dataclass(frozen=True)
class Push:
    """What goes where, from `plan_push` and `look_at_hub`.

    Args:
        repository: `OWNER/NAME` on the hub.
        private: Whether only its owner may see it.
        files: What is uploaded, by its name there.
        notes: What the owner should know before anybody reads it.
        deleted: What is deleted there, since it belongs to the checkpoint that this one replaces.
        parent: The commit that the upload goes on top of; None to make the repository.
    """

    repository: str
    private: bool
    files: Mapping[str, Path]
    notes: tuple[str, ...]
    deleted: tuple[str, ...] = ()
    parent: str | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """The files' sizes in bytes, by name."""
        return {name: path.stat().st_size for name, path in self.files.items()}


def plan_push(run: Path, repository: str, *, private: bool = True, unmeasured: bool = False) -> Push:
    """Say what of a run would be uploaded, after checking that it is whole; no network is used.

    The checkpoint's files are those of its manifest, so that nothing else that lies in the directory goes along.

    Args:
        run: The run directory.
        repository: `OWNER/NAME` on the hub.
        private: Whether a repository that is made is private.
        unmeasured: Whether a checkpoint that nothing was measured on may go; results of another one stay here.

    Raises:
        ConfigError: The repository's name is none.
        RunDirectoryError: There is no merged checkpoint, or nothing was measured on it and that isn't allowed.
        CheckpointError: The checkpoint is not as its manifest says.
        DataError: The results can't be read.
    """
    _require_repository_name(repository)
    merged = run / "merged"
    if not (merged / MANIFEST_NAME).is_file():
        raise RunDirectoryError(
            f"{run} holds no finished merged checkpoint ({merged / MANIFEST_NAME} is missing): name a run directory, "
            "and finish it with `unspoiled run`."
        )
    lacking = _why_unmeasured(run, merged)
    if lacking is not None and not unmeasured:
        raise RunDirectoryError(
            f"{lacking} Finish it with `unspoiled run`, or give --unmeasured to upload the merge without results."
        )
    verify_manifest(merged)
    files = {name: merged / name for name in sorted([*read_manifest(merged).files, MANIFEST_NAME])}
    if lacking is None:
        files |= {name: run / name for name in _BESIDE if (run / name).is_file()}
    return Push(repository, private, files, (*([] if lacking is None else [lacking]), *notes(files)))


def _why_unmeasured(run: Path, merged: Path) -> str | None:
    """Return why a run's results say nothing of its merge; None where they are of it."""
    results = run / "results.json"
    if not results.is_file():
        return f"{run} has no results.json: nothing says what this merge refuses."
    if Results.read(results).provenance.get("merged") != checkpoint_hash(merged):
        return f"{results} is not of the checkpoint in {merged}: nothing says what this merge refuses."
    return None


def look_at_hub(planned: Push, *, replacing: bool = False, endpoint: str | None = None) -> Push:
    """Return the plan as it is for what the repository holds already; nothing is changed there.

    A repository that holds a checkpoint gets the new one in its place: the files of the old one that the new one
    doesn't overwrite are `deleted`, since old weights beside new ones could be the ones that load. Others stay.

    Args:
        planned: What goes where.
        replacing: Whether a repository may be taken over that holds files, and no checkpoint that we pushed.
        endpoint: The hub's address. Default: huggingface_hub's, which HF_ENDPOINT sets.

    Raises:
        ConfigError: There is no token.
        RunDirectoryError: The repository is public and a private one was wanted, or it holds what we didn't push.
        ServerError: The hub refuses or can't be reached.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    name = planned.repository
    with _explained(name):
        try:
            found = _hub(endpoint).model_info(name)
        except RepositoryNotFoundError:  # or hidden from this token, which shows when it can't be made
            return planned
    if planned.private and not found.private:
        raise RunDirectoryError(
            f"{name!r} is on the hub already, and public: nothing was uploaded. Choose another name, or give --public."
        )
    held = sorted(one.rfilename for one in found.siblings or [] if one.rfilename != ".gitattributes")
    if held and MANIFEST_NAME not in held and not replacing:
        raise RunDirectoryError(
            f"{name!r} holds files that unspoiled did not push (it has no {MANIFEST_NAME}; found {_some(held)}): "
            "nothing was uploaded. Choose another name, or give --replace to put this checkpoint in the place of what "
            "is there."
        )
    return replace(
        planned,
        private=bool(found.private),
        notes=(*planned.notes, *_notes_on_replaced(planned, held)),
        deleted=tuple(one for one in held if one not in planned.files and _is_of_checkpoint(one)),
        parent=found.sha,
    )


def _notes_on_replaced(planned: Push, held: Sequence[str]) -> Iterator[str]:
    if replaced := [one for one in held if one in planned.files]:
        yield f"{planned.repository} is on the hub already, and these are replaced there: {_some(replaced)}"
    if kept := [one for one in held if one not in planned.files and not _is_of_checkpoint(one)]:
        yield f"these stay there as they are: {_some(kept)}"


def _is_of_checkpoint(name: str) -> bool:
    return name in _CHECKPOINT_FILES or name.endswith(_WEIGHTS) or name.startswith("additional_chat_templates/")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def push(planned: Push, *, endpoint: str | None = None) -> str:
    """Upload what was planned in one commit, and return the repository's address.

    The token is the one of `hf auth login` or of the environment variable HF_TOKEN.

    Args:
        planned: What goes where, as `look_at_hub` returns it; without that look, only a new repository is written.
        endpoint: The hub's address. Default: huggingface_hub's, which HF_ENDPOINT sets.

    Raises:
        ConfigError: There is no token.
        RunDirectoryError: The repository is there, and wasn't when the hub was looked at.
        ServerError: The hub refuses, as it does where the repository has changed since, or can't be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api = _hub(endpoint)
    if planned.parent is None:
        _make_repository(api, planned)
    added = [CommitOperationAdd(name, path) for name, path in planned.files.items()]
    deleted = [CommitOperationDelete(name, is_folder=False) for name in planned.deleted]
    with _explained(planned.repository):
        api.create_commit(
            planned.repository,
            [*added, *deleted],
            commit_message="Upload a merge by unspoiled",
            parent_commit=planned.parent,
        )
    return f"{api.endpoint}/{planned.repository}"


def _hub(endpoint: str | None) -> HfApi:
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise ConfigError("there is no token for the hub: run `hf auth login`, or set HF_TOKEN.")
    return HfApi(endpoint=endpoint, library_name="unspoiled")


def _make_repository(api: HfApi, planned: Push) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    with _explained(planned.repository):
        try:
            api.create_repo(planned.repository, private=planned.private, exist_ok=False)
        except HfHubHTTPError as error:
            if error.response.status_code != 409:
                raise
            raise RunDirectoryError(
                f"{planned.repository!r} is on the hub already, and what it holds was not seen: nothing was uploaded. "
                "Run the command again; if it says the same, the token may not read there."
            ) from None


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Turn what the hub and the network say into one error."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = {
            401: "Run `hf auth login` again.",
            403: "The token may not write there: make one that may.",
            412: "The repository has changed since it was looked at: run the command again.",
        }
        raise ServerError(
            f"the hub answers {status} for {repository!r}: {_first_line(error)} "
            f"{advice.get(status, 'Try again; what was uploaded already is not uploaded twice.')}"
        ) from error
    except (ValueError, RuntimeError) as error:  # its words for a card, or a file, that didn't go through
        why = f" ({_first_line(error.__cause__)})" if isinstance(error.__cause__, Exception) else ""
        raise ServerError(f"the hub doesn't take {repository!r}: {_first_line(error)}{why}") from error
    except Exception as error:
        # It sends with httpx or httpx2, by its version; the errors of both have a parent of this name.
        if not isinstance(error, OSError) and "HTTPError" not in {kind.__name__ for kind in type(error).__mro__}:
            raise
        raise ServerError(f"the hub can't be reached for {repository!r}: {_first_line(error)}. Try again.") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _require_repository_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"{repository!r} is no name of a repository: {_first_line(error)}") from None
    if repository.count("/") != 1:
        raise ConfigError(f"{repository!r} names no owner: write OWNER/NAME, so that it is plain where this goes.")
