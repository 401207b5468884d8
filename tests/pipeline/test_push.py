"""A run goes to the hub whole, private unless asked otherwise, and after asking; tried on a hub on localhost."""

import json
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
from huggingface_hub import constants

from command import Finished, unspoiled
from fake_hub import TOKEN, Hub, fake_hub
from unspoiled.checkpoints import checkpoint_hash, write_manifest
from unspoiled.errors import CheckpointError, ConfigError, DataError, RunDirectoryError, ServerError
from unspoiled.evaluate import ModelScores, Rate, Results
from unspoiled.pipeline import look_at_hub, plan_push
from unspoiled.pipeline import push as upload
from unspoiled.report import CardInputs, CardModel, render_card

# huggingface_hub sends a file in a way that the client library has begun to deprecate.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
RESULTS = Results(
    models={"gradient": ModelScores(rates={"refusal": Rate.of([True, True, False])})},
    comparisons=[],
    provenance={"winner": "gradient"},
)
WEIGHTS = bytes(range(256)) * 40


def measure(run: Path) -> None:
    """Write results of the checkpoint that lies in the run."""
    provenance = {**RESULTS.provenance, "merged": checkpoint_hash(run / "merged")}
    (run / "results.json").write_text(RESULTS.model_copy(update={"provenance": provenance}).to_json())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    merged = tmp_path / "run" / "merged"
    (merged / "additional_chat_templates").mkdir(parents=True)
    (merged / "model.safetensors").write_bytes(WEIGHTS)
    (merged / "config.json").write_text("{}")
    (merged / "additional_chat_templates" / "tool.jinja").write_text("{{ x }}")
    card = CardInputs("m", [CardModel("org/base", "org/base", "mit")], "models: []\n", "rules", {}, RESULTS, "gradient")
    (merged / "README.md").write_text(render_card(card))
    write_manifest(merged)
    measure(tmp_path / "run")
    (tmp_path / "run" / "report.html").write_text("<p>report</p>")
    (tmp_path / "run" / "data.jsonl").write_text("not for the hub")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Empty the hub, and make it this process's."""
    for part in (server.created, server.repositories, server.public, server.objects, server.requests):
        part.clear()
    server.forbidden, server.stores = False, True
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return server


def push(run: Path, *arguments: str, answer: str = "") -> Finished:
    with patch.object(sys, "stdin", StringIO(answer)):
        return unspoiled("push", run, *arguments)


def test_the_very_bytes_arrive_in_a_private_repository(run: Path, hub: Hub) -> None:
    (run / "merged" / "notes.txt").write_text("lies there, and is not in the manifest")
    done = push(run, "me/merge", "--yes")
    assert done.code == 0, done.err
    assert done.out == f"{hub.endpoint}/me/merge\n"
    assert [(asked["organization"], asked["name"], asked["visibility"]) for asked in hub.created] == [
        ("me", "merge", "private")
    ]
    merged = run / "merged"
    names = ["README.md", "additional_chat_templates/tool.jinja", "config.json", "model.safetensors", "unspoiled.json"]
    expected = {name: (merged / name).read_bytes() for name in names}
    expected |= {name: (run / name).read_bytes() for name in ("results.json", "report.html")}
    assert hub.repositories == {"me/merge": expected}
    assert list(hub.objects.values()) == [WEIGHTS]
    assert hub.public == set()


def test_it_asks_first(run: Path, hub: Hub) -> None:
    for answer, code in (("n\n", 1), ("\n", 1), ("", 2)):
        done = push(run, "me/merge", answer=answer)
        assert done.code == code
        assert "Upload to me/merge, which only its owner can see?" in done.err
        assert "othing was uploaded" in done.err
        assert set(hub.requests) == {"GET /api/models/me/merge"}
    done = push(run, "me/merge", "--public", answer="y\n")
    assert "which EVERYBODY can see?" in done.err
    assert done.code == 0
    assert hub.public == {"me/merge"}


def test_a_dry_run_needs_no_network_and_no_token(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = push(run, "me/merge", "--dry-run")
    assert done.code == 0
    assert "whether me/merge holds what would be replaced was not looked up: there is no token" in done.err
    assert "me/merge (private): 7 files" in done.out
    assert "  model.safetensors" in done.out
    assert "10.2 kB" in done.out
    assert "note: report.html shows answers of models that comply with unsafe prompts" in done.out
    assert hub.requests == []


def test_without_a_token_it_says_how_to_get_one(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = push(run, "me/merge", "--yes")
    assert (done.code, hub.requests) == (2, [])
    assert "hf auth login" in done.err


def test_what_the_hub_refuses_is_an_error_that_says_why(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    done = push(run, "me/merge", "--yes")
    assert done.code == 9
    assert "the hub answers 401 for 'me/merge'" in done.err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.forbidden = True
    done = push(run, "me/merge", "--yes")
    assert "the hub answers 403" in done.err
    assert "make one that may" in done.err
    hub.forbidden, hub.stores = False, False
    done = push(run, "me/merge", "--yes")
    assert (done.code, hub.repositories) == (9, {"me/merge": {}})
    assert "Error while uploading 'model.safetensors'" in done.err
    assert "403" in done.err
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    done = push(run, "me/merge", "--yes")
    assert (done.code, "can't be reached" in done.err) == (9, True), done.err


def test_a_private_upload_never_lands_in_a_public_repository(run: Path, hub: Hub) -> None:
    hub.repositories["me/merge"] = {}
    hub.public.add("me/merge")
    done = push(run, "me/merge", "--yes")
    assert (done.code, hub.repositories["me/merge"]) == (6, {})
    assert "is on the hub already, and public: nothing was uploaded" in done.err
    hub.public.clear()
    assert push(run, "me/merge", "--yes").code == 0
    assert len(hub.repositories["me/merge"]) == 7


def shard(run: Path) -> None:
    """Put a checkpoint of two shards and no generation config in the place of the run's."""
    merged = run / "merged"
    (merged / "model.safetensors").unlink()
    (merged / "additional_chat_templates" / "tool.jinja").unlink()
    for number in (1, 2):
        (merged / f"model-0000{number}-of-00002.safetensors").write_bytes(WEIGHTS[number:])
    (merged / "model.safetensors.index.json").write_text("{}")
    write_manifest(merged)
    measure(run)


def test_a_second_push_leaves_no_file_of_the_first_checkpoint(run: Path, hub: Hub) -> None:
    """transformers looks for `model.safetensors` first: the old weights would load under the new card."""
    assert push(run, "me/merge", "--yes").code == 0
    theirs = {".gitattributes": b"", "LICENSE": b"MIT", "sub/old.gguf": b"old weights in another format"}
    hub.repositories["me/merge"] |= theirs
    shard(run)
    dry = push(run, "me/merge", "--dry-run")
    gone = ["additional_chat_templates/tool.jinja", "model.safetensors", "sub/old.gguf"]
    assert [line.split()[0] for line in dry.out.splitlines() if line.endswith("deleted there")] == gone
    assert "note: these stay there as they are: LICENSE" in dry.out
    assert "is on the hub already, and these are replaced there: README.md, config.json," in dry.out
    asked = push(run, "me/merge", answer="n\n")
    assert "which only its owner can see, and delete 3 files there?" in asked.err
    assert set(gone) < set(hub.repositories["me/merge"])
    commits = sum("/commit/" in request for request in hub.requests)
    assert push(run, "me/merge", "--yes").code == 0
    assert sum("/commit/" in request for request in hub.requests) == commits + 1
    uploaded = {name: path.read_bytes() for name, path in plan_push(run, "me/merge").files.items()}
    kept = {name: content for name, content in theirs.items() if name not in gone}
    assert hub.repositories["me/merge"] == uploaded | kept


def test_what_somebody_else_pushed_is_replaced_only_on_demand(run: Path, hub: Hub) -> None:
    theirs = {"pytorch_model.bin": b"other", "config.json": b"{}", "modeling.py": b"x", ".gitattributes": b""}
    hub.repositories["me/merge"] = dict(theirs)
    for arguments in (["--dry-run"], ["--yes"]):
        done = push(run, "me/merge", *arguments)
        assert (done.code, hub.repositories["me/merge"]) == (6, theirs)
        assert "found config.json, modeling.py, pytorch_model.bin" in done.err
        assert "--replace" in done.err
    assert push(run, "me/merge", "--yes", "--replace").code == 0
    left = set(hub.repositories["me/merge"])
    assert "pytorch_model.bin" not in left
    assert {"model.safetensors", "modeling.py", ".gitattributes"} < left
    hub.repositories["me/new"] = {".gitattributes": b""}
    assert push(run, "me/new", "--yes").code == 0, "as the hub makes an empty one"


def test_a_repository_that_changes_after_it_was_looked_at_is_left_alone(run: Path, hub: Hub) -> None:
    seen = look_at_hub(plan_push(run, "me/merge"))
    hub.repositories["me/merge"] = {"README.md": b"made meanwhile"}
    with pytest.raises(RunDirectoryError, match="what it holds was not seen"):
        upload(seen)
    seen = look_at_hub(plan_push(run, "me/merge"), replacing=True)
    hub.repositories["me/merge"]["README.md"] = b"changed meanwhile"
    with pytest.raises(ServerError, match="has changed since it was looked at"):
        upload(seen)
    assert hub.repositories["me/merge"] == {"README.md": b"changed meanwhile"}


def test_a_merge_never_goes_with_the_results_of_another(run: Path) -> None:
    """As after a search that went on to another winner, or a kill between merging and measuring."""
    (run / "merged" / "README.md").write_text("# another card, as after measuring")
    write_manifest(run / "merged")
    assert "results.json" in plan_push(run, "me/merge").files
    (run / "merged" / "model.safetensors").write_bytes(WEIGHTS[::-1])
    write_manifest(run / "merged")
    with pytest.raises(RunDirectoryError, match=r"results.json is not of the checkpoint in .*merged"):
        plan_push(run, "me/merge")
    unmeasured = plan_push(run, "me/merge", unmeasured=True)
    assert not {"results.json", "report.html"} & set(unmeasured.files)
    assert "is not of the checkpoint" in unmeasured.notes[0]


def test_an_unmeasured_merge_stays_unless_that_is_wanted(run: Path) -> None:
    (run / "results.json").unlink()
    with pytest.raises(RunDirectoryError, match="nothing says what this merge refuses"):
        plan_push(run, "me/merge")
    assert "results.json" not in plan_push(run, "me/merge", unmeasured=True).files
    (run / "results.json").write_text("{}")
    with pytest.raises(DataError, match="format None"):
        plan_push(run, "me/merge")


def test_a_changed_checkpoint_stays(run: Path) -> None:
    (run / "merged" / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"x")
    with pytest.raises(CheckpointError, match="another content"):
        plan_push(run, "me/merge")
    (run / "merged" / "unspoiled.json").unlink()
    with pytest.raises(RunDirectoryError, match="no finished merged checkpoint"):
        plan_push(run, "me/merge")


@pytest.mark.parametrize("name", ["merge", "me/merge/2", "me/mer ge", "me/--x", "https://hf.co/me/merge", ""])
def test_a_wrong_name_is_refused(run: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"is no name of a repository|names no owner"):
        plan_push(run, name)


def test_what_a_stranger_would_see_is_noted(run: Path) -> None:
    sound = plan_push(run, "me/merge").notes
    assert sound == ("report.html shows answers of models that comply with unsafe prompts",)
    card = CardInputs("m", [CardModel("base")], "models: []\n", "rules", {})
    (run / "merged" / "README.md").write_text(render_card(card))
    (run / "merged" / "mergekit_config.yml").write_text("models:\n  - model: /home/ann/secret+/home/ann/lora\n")
    write_manifest(run / "merged")
    notes = "\n".join(plan_push(run, "me/merge").notes)
    for part in (
        "states no license",
        "names no base_model",
        "no results",
        "of this machine: /home/ann/lora, /home/ann/s",
    ):
        assert part in notes


def test_every_text_that_names_paths_of_the_machine_is_noted(run: Path, tmp_path: Path) -> None:
    (run / "merged" / "mergekit_config.yml").write_text("models:\n  - model: /gone/base\n")
    tokens = {"vocab": ["/usr/bin", "</div>", "</a/b>", "https://home.org/home/x", "//home/x", "/home/", "x/home/y"]}
    (run / "merged" / "tokenizer.json").write_text(json.dumps(tokens))
    (run / "merged" / "tokenizer.model").write_bytes(b"\xff/home/ann")
    (run / "merged" / "config.json").write_text(json.dumps({"origin": "C:\\Users\\ann\\base"}))
    write_manifest(run / "merged")
    measure(run)
    (run / "report.html").write_text(
        f"<td>/gone/base</td><pre>cat /etc/passwd or {tmp_path}/run.yaml; org/gone/base</pre>"
    )
    results = (run / "results.json").read_text()
    (run / "results.json").write_text(results.replace('"gradient"', json.dumps("gradient\n/home/ann/guard")))
    found = [note for note in plan_push(run, "me/merge").notes if "of this machine" in note]
    assert found == [
        "config.json names paths of this machine: C:\\\\Users\\\\ann\\\\base",
        "mergekit_config.yml names paths of this machine: /gone/base",
        "results.json names paths of this machine: /home/ann/guard",
        f"report.html names paths of this machine: /gone/base, {tmp_path}/run.yaml",
    ]


def test_the_command_refuses_a_run_that_is_none(tmp_path: Path) -> None:
    done = unspoiled("push", tmp_path, "me/merge", "--dry-run")
    assert (done.code, "holds no finished merged checkpoint" in done.err) == (6, True)
