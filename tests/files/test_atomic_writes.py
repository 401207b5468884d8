"""Atomic writes, hashes and free space."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.errors import ResourceError
from unspoiled.files import check_free_space, hash_file, hash_value, write_atomic, write_json_atomic

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("content", ["grün\n", b"\x00\xff", ""])
def test_replaces_the_content_and_leaves_nothing_beside_it(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "file"
    path.write_text("old and longer")
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path) == ["file"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_the_new_content_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("flush"), real_fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (steps.append("rename"), real_replace(self, target))[1])
    write_atomic(path, "new")
    assert steps == ["flush", "rename", "flush"]  # the file, the rename, the directory


def test_json_refuses_what_json_does_not_have(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "a.json", {"a": ["ü", 1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    "ü",\n    1\n  ]\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(tmp_path / "a.json", float("nan"))


def test_hash_file_is_the_sha256_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(bytes(range(256)) * 5000)
    assert hash_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_hash_value_ignores_key_order(value: dict[str, object]) -> None:
    assert hash_value(value) == hash_value(dict(reversed(value.items())))


def test_hash_value_tells_values_apart() -> None:
    values: list[object] = [None, False, 0, 0.0, "", "0", [], [0], {}, {"0": 0}, [[]], "[]"]
    assert len({hash_value(value) for value in values}) == len(values)
    with pytest.raises(ValueError, match="JSON"):
        hash_value([float("inf")])


def test_free_space_is_checked_for_a_directory_that_does_not_exist_yet(tmp_path: Path) -> None:
    check_free_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(ResourceError, match=r"are needed and .* are free"):
        check_free_space(tmp_path / "not" / "yet", 10**18)
    assert not (tmp_path / "not").exists()
