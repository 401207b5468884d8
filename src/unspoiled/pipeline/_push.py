"""A run's merged checkpoint, its card and its results on the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspoiled.checkpoints import RECIPE_NAME, read_manifest, verify_manifest
from unspoiled.config import load_yaml
from unspoiled.errors import ConfigError, RunDirectoryError, ServerError
from unspoiled.evaluate import Results
from unspoiled.files import MANIFEST_NAME

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_BESIDE = ("results.json", "report.html")
"""What goes with the checkpoint from the run directory, where it is there."""


@dataclass(frozen=True)
class Push:
    """What goes where, from `plan_push`.

    Args:
        repository: `OWNER/NAME` on the hub.
        private: Whether only its owner may see it.
        files: What is uploaded, by its name there.
        notes: What the owner should know before anybody reads it.
    """

    repository: str
    private: bool
    files: Mapping[str, Path]
    notes: tuple[str, ...]

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
        unmeasured: Whether a checkpoint without results may go.

    Raises:
        ConfigError: The repository's name is none.
        RunDirectoryError: There is no merged checkpoint, or nothing was measured on it and that isn't allowed.
        CheckpointError: The checkpoint is not as its manifest says.
        DataError: The results can't be read.
    """
    _require_repository_name(repository)
    merged, results = run / "merged", run / "results.json"
    if not (merged / MANIFEST_NAME).is_file():
        raise RunDirectoryError(
            f"{run} holds no finished merged checkpoint ({merged / MANIFEST_NAME} is missing): name a run directory, "
            "and finish it with `unspoiled run`."
        )
    if results.is_file():
        found = Results.read(results)
        if found.provenance.get("winner") not in found.models:
            raise RunDirectoryError(f"{results} is not of a run: it names no merge that was chosen and measured.")
    elif not unmeasured:
        raise RunDirectoryError(
            f"{run} has no results.json: nothing says what this merge refuses. Finish it with `unspoiled run`, or give "
            "--unmeasured to upload it all the same."
        )
    verify_manifest(merged)
    files = {name: merged / name for name in sorted([*read_manifest(merged).files, MANIFEST_NAME])}
    files |= {name: run / name for name in _BESIDE if (run / name).is_file()}
    return Push(repository, private, files, tuple(_notes(merged, files)))


def push(planned: Push, *, endpoint: str | None = None) -> str:
    """Upload what was planned in one commit, and return the repository's address.

    The token is the one of `hf auth login` or of the environment variable HF_TOKEN.

    Args:
        planned: What goes where.
        endpoint: The hub's address. Default: huggingface_hub's, which HF_ENDPOINT sets.

    Raises:
        ConfigError: There is no token.
        RunDirectoryError: The repository is there, public, and a private one was wanted.
        ServerError: The hub refuses or can't be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise ConfigError("there is no token for the hub: run `hf auth login`, or set HF_TOKEN.")
    api = HfApi(endpoint=endpoint, library_name="unspoiled")
    _make_repository(api, planned)
    operations = [CommitOperationAdd(name, path) for name, path in planned.files.items()]
    with _explained(planned.repository):
        api.create_commit(planned.repository, operations, commit_message="Upload a merge by unspoiled")
    return f"{api.endpoint}/{planned.repository}"


def _make_repository(api: HfApi, planned: Push) -> None:
    """Make the repository, or check that the one that is there is no more public than was asked for."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with _explained(planned.repository, passed=lambda status: status == 409):
            api.create_repo(planned.repository, private=planned.private, exist_ok=False)
    except HfHubHTTPError:
        with _explained(planned.repository):
            found = api.model_info(planned.repository)
        if planned.private and not found.private:
            raise RunDirectoryError(
                f"{planned.repository!r} is on the hub already, and public: nothing was uploaded. Choose another name, "
                "or give --public."
            ) from None


@contextmanager
def _explained(repository: str, passed: Callable[[int], bool] = lambda status: False) -> Iterator[None]:
    """Turn what the hub and the network say into one error; statuses that `passed` knows are left as they are."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        if passed(error.response.status_code):
            raise
        status = error.response.status_code
        advice = {401: "Run `hf auth login` again.", 403: "The token may not write there: make one that may."}
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


def _notes(merged: Path, files: Mapping[str, Path]) -> Iterator[str]:
    """Yield what a stranger would stumble over, or learn that he shouldn't."""
    if "README.md" not in files:
        yield "there is no model card"
    else:
        yield from _card_notes((merged / "README.md").read_text(encoding="utf-8"))
    if RECIPE_NAME in files:
        text = (merged / RECIPE_NAME).read_text(encoding="utf-8")
        paths = sorted(set(re.findall(r"(?<![\w/:])(?:/|[A-Za-z]:\\)[^\s'\"+]+", text)))
        if paths:
            yield f"{RECIPE_NAME} names directories of this machine: {', '.join(paths[:3])}"
    if "report.html" in files:
        yield "report.html shows answers of models that comply with unsafe prompts"


def _card_notes(card: str) -> Iterator[str]:
    head = re.match(r"---\n(.*?\n)---\n", card, flags=re.DOTALL)
    found: Any = {}
    if head is not None:
        try:
            found = load_yaml(head[1], source="README.md").value
        except ConfigError as error:
            yield f"the card's front matter can't be read: {error}"
    stated = found if isinstance(found, dict) else {}
    if "license" not in stated:
        yield "the card states no license: the inputs' cards don't all state one"
    if "base_model" not in stated:
        yield "the card names no base_model: no input is a model of the hub"
    if "model-index" not in stated:
        yield "the card has no results for the hub"
