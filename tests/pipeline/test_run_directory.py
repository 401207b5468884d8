"""A run directory holds one run: it continues its own, refuses what is not, and leaves no trace where it refuses."""

import os
import stat
from pathlib import Path

import pytest

from unspoiled.errors import RunDirectoryError
from unspoiled.pipeline import RunDirectory


def run_in(path: Path, *, config: dict[str, object] | None = None, fresh: bool = False) -> RunDirectory:
    return RunDirectory(path, config=config or {"search": {"alpha": 0.3}}, inputs={"model base": "ab12"}, fresh=fresh)


def work(path: Path, *, inputs: object = 1, config: dict[str, object] | None = None, fresh: bool = False) -> bool:
    """Do one step that leaves a file; return whether there was anything to do."""
    output = path / "product.txt"
    with run_in(path, config=config, fresh=fresh) as run:
        return run.step("step", inputs, [output], lambda: output.write_text("made") and {"made": 4})


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_a_step_is_done_once(tmp_path: Path) -> None:
    assert work(tmp_path / "run")
    assert not work(tmp_path / "run")
    with run_in(tmp_path / "run") as run:
        assert run.record("step") == {"made": 4}
        assert list(run.seconds) == ["step"]


def test_a_step_is_done_again_from_other_inputs_or_without_its_product(tmp_path: Path) -> None:
    work(tmp_path / "run")
    assert work(tmp_path / "run", inputs=2)
    (tmp_path / "run" / "product.txt").unlink()
    assert work(tmp_path / "run", inputs=2)


def test_a_step_that_fails_leaves_no_record(tmp_path: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), run_in(tmp_path / "run") as run:
        run.step("step", 1, [], fail)
    assert work(tmp_path / "run"), "and the directory is free again"


@pytest.mark.parametrize("fresh", [False, True])
def test_a_directory_of_somebody_else_is_refused_untouched(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    before = tree(tmp_path)
    with (
        pytest.raises(RunDirectoryError, match=r"holds \['thesis.txt'\] and no run of ours"),
        run_in(tmp_path, fresh=fresh),
    ):
        pass
    assert tree(tmp_path) == before, "not even a lock is left"


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(RunDirectoryError, match="is a file"), run_in(tmp_path / "run"):
        pass


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert work(tmp_path / "run")


@pytest.mark.parametrize("left", [["run.lock"], ["run.lock", ".run.json.123-abcd.tmp"]])
def test_a_run_killed_before_its_first_word_is_continued(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_text("123\n")
    assert work(tmp_path)
    assert sorted(tree(tmp_path)) == ["product.txt", "run.json", "run.lock", "steps.json"], "halves are swept"


def test_another_config_is_refused_with_the_difference_and_nothing_changes(tmp_path: Path) -> None:
    work(tmp_path / "run")
    before = tree(tmp_path / "run")
    with pytest.raises(RunDirectoryError) as caught:
        work(tmp_path / "run", config={"search": {"alpha": 0.5}})
    assert "-    alpha: 0.3\n+    alpha: 0.5" in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert tree(tmp_path / "run") | {"run.lock": b""} == before | {"run.lock": b""}


def test_fresh_discards_an_old_run(tmp_path: Path) -> None:
    work(tmp_path / "run")
    (tmp_path / "run" / "folder").mkdir()
    (tmp_path / "run" / "folder" / "old.txt").write_text("old")
    (tmp_path / "run" / "link").symlink_to(tmp_path)
    assert work(tmp_path / "run", config={"search": {"alpha": 0.5}}, fresh=True)
    assert sorted(tree(tmp_path / "run")) == ["product.txt", "run.json", "run.lock", "steps.json"]
    assert tmp_path.is_dir(), "a link is removed, not followed"


def test_a_discard_that_was_killed_can_be_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    work(path)
    (path / "folder").mkdir()

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            work(path, config={"search": {}}, fresh=True)
    assert work(path, config={"search": {}}, fresh=True)
    assert not (path / "folder").exists()


def test_a_second_process_is_told_who_works_here(tmp_path: Path) -> None:
    with (
        run_in(tmp_path / "run"),
        pytest.raises(RunDirectoryError, match=f"in use by process {os.getpid()}"),
        run_in(tmp_path / "run"),
    ):
        pass
    assert work(tmp_path / "run")


def test_only_products_of_a_second_visit_change(tmp_path: Path) -> None:
    work(tmp_path / "run")
    before = {p.name: p.stat()[stat.ST_MTIME] for p in (tmp_path / "run").iterdir() if p.name != "run.lock"}
    identity = (tmp_path / "run" / "run.json").stat().st_ino
    work(tmp_path / "run")
    assert {p.name: p.stat()[stat.ST_MTIME] for p in (tmp_path / "run").iterdir() if p.name != "run.lock"} == before
    assert (tmp_path / "run" / "run.json").stat().st_ino == identity, "not even written anew"
