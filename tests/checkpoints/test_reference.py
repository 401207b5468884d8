"""Names of models: parsing, printing, and where they lead."""

from pathlib import Path

import huggingface_hub
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.checkpoints import ModelRef, locate
from unspoiled.errors import CheckpointError, ConfigError

WORD = st.text(alphabet="abcXYZ019-_.", min_size=1, max_size=8).filter(lambda text: text.strip("."))
HUB_ID = st.builds("{}/{}".format, WORD, WORD)
PART = st.builds(ModelRef, HUB_ID | WORD | st.builds("/models/{}".format, WORD), st.none() | WORD)
REF = st.builds(lambda base, adapter: ModelRef(base.path, base.revision, adapter), PART, st.none() | PART)


@given(REF)
def test_text_and_reference_are_inverses(ref: ModelRef) -> None:
    assert ModelRef.parse(str(ref)) == ref


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/model", ModelRef("org/model")),
        ("org/model@v1.0", ModelRef("org/model", "v1.0")),
        ("org/model@refs/pr/3", ModelRef("org/model", "refs/pr/3")),
        ("org/base+org/lora", ModelRef("org/base", None, ModelRef("org/lora"))),
        (" org/base@a + org/lora@b ", ModelRef("org/base", "a", ModelRef("org/lora", "b"))),
        ("./out/model", ModelRef("./out/model")),
        ("gpt2", ModelRef("gpt2")),
    ],
)
def test_reads_what_recipes_write(text: str, expected: ModelRef) -> None:
    assert ModelRef.parse(text) == expected


@pytest.mark.parametrize("text", ["", "  ", "+lora", "base+", "@main", "org/model@", "org/model@+lora"])
def test_an_empty_part_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"has an empty part"):
        ModelRef.parse(text)


def test_paths_start_from_the_recipe_and_hub_ids_do_not(tmp_path: Path) -> None:
    (tmp_path / "models" / "base").mkdir(parents=True)
    parse = lambda text: ModelRef.parse(text, relative_to=tmp_path)  # noqa: E731
    assert parse("models/base+models/lora") == ModelRef(
        f"{tmp_path}/models/base", None, ModelRef(f"{tmp_path}/models/lora")
    ), "models/lora doesn't exist, but the directory before its name does"
    assert parse("org/base") == ModelRef("org/base")
    assert parse("models").path == f"{tmp_path}/models"
    assert parse("./nowhere").path == f"{tmp_path}/nowhere"


def test_separators_in_the_names_of_existing_directories_are_kept(tmp_path: Path) -> None:
    for name in ("c++", "a@b", "x+y@z"):
        (tmp_path / name).mkdir()
        assert ModelRef.parse(name, relative_to=tmp_path) == ModelRef(str(tmp_path / name))
    assert ModelRef.parse("c+++a@b", relative_to=tmp_path) == ModelRef(
        f"{tmp_path}/c++", None, ModelRef(f"{tmp_path}/a@b")
    )


def test_a_directory_is_its_own_location(tmp_path: Path) -> None:
    assert locate(ModelRef(str(tmp_path))) == tmp_path


@pytest.mark.parametrize("name", ["./gone", "../gone", "/gone/model", "~/gone/model", "a/b/c"])
def test_a_mistyped_path_is_never_tried_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*args: object, **kwargs: object) -> str:
        raise AssertionError("asked the hub for a path")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", called)
    with pytest.raises(CheckpointError, match=rf"'{name}' does not exist \(looked in .*ORGANISATION/NAME"):
        locate(ModelRef(name))


def test_a_missing_name_in_an_existing_directory_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="'models/gone' does not exist"):
        locate(ModelRef("models/gone"))


def test_a_safetensors_file_is_its_own_location(tmp_path: Path) -> None:
    file = tmp_path / "a@b+c.safetensors"
    file.write_text("")
    assert locate(ModelRef(str(file))) == file
    assert ModelRef.parse("a@b+c.safetensors", relative_to=tmp_path) == ModelRef(str(file))
    assert ModelRef.parse(f"{file}+lora") == ModelRef(str(file), None, ModelRef("lora"))


def test_a_name_that_ends_in_safetensors_is_no_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **options: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match=r"'gone/model\.safetensors' does not exist"):
        locate(ModelRef("gone/model.safetensors"))


def test_local_models_have_no_revision(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_text("")
    with pytest.raises(CheckpointError, match="a file has no revisions"):
        locate(ModelRef(str(file), "main"))
    with pytest.raises(CheckpointError, match="a directory has no revisions"):
        locate(ModelRef(str(tmp_path), "main"))


def test_a_hub_id_downloads_no_pickle_and_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def snapshot_download(repo: str, **options: object) -> str:
        asked.update(options, repo=repo)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert locate(ModelRef("org/model", "v1")) == tmp_path
    assert (asked["repo"], asked["revision"]) == ("org/model", "v1")
    from huggingface_hub.utils import filter_repo_objects

    files = [
        *("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "tokenizer.model"),
        *(
            "pytorch_model.bin",
            "modeling.py",
            "model.gguf",
            "original/consolidated.00.pth",
            "onnx/config.json",
        ),
        *("consolidated.safetensors", "README.md", "training_args.bin", "merges.txt"),
    ]
    taken = filter_repo_objects(files, allow_patterns=asked["allow_patterns"], ignore_patterns=asked["ignore_patterns"])
    assert list(taken) == [*files[:5], "README.md", "merges.txt"]


def test_a_failed_download_says_what_to_check() -> None:
    with pytest.raises(CheckpointError, match=r"'org/gone@v1' is no local directory, and downloading it"):
        locate(ModelRef("org/gone", "v1"))  # HF_HUB_OFFLINE is set for all tests
