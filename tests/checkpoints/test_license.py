"""The license that a model's card states, and cards that state none."""

import shutil
from pathlib import Path

import pytest

from tiny import Bunch
from unspoiled.checkpoints import ModelRef, declared_license, open_model


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model", "apache-2.0"),
        ("---\nlicense:\n  - mit\n---\n", "mit"),
        ("---\nlicense: other\nlicense_name: our own\n---\n", "other: our own"),
        ("---\nlicense: other\n---\n", None),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None),
        ("---\nlicense: {a: b}\n---\n", None),
        ("---\nlicense: !!python/object:os.system x\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("---\n- a list\n---\n", None),
        ("license: mit", None),
        (b"\xff\xfe", None),
        (None, None),
    ],
)
def test_what_a_card_states(bunch: Bunch, tmp_path: Path, card: str | bytes | None, license: str | None) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bunch.full, folder)
    if card is not None:
        (folder / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    assert declared_license(open_model(ModelRef(str(folder)))) == license


def test_of_an_adapter_its_own_card_counts(bunch: Bunch, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(bunch.base, base)
    shutil.copytree(bunch.aligned, adapter)
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    expert = open_model(ModelRef(str(base), adapter=ModelRef(str(adapter))))
    (adapter / "README.md").unlink(missing_ok=True)
    assert declared_license(expert) is None
    (adapter / "README.md").write_text("---\nlicense: gemma\n---\n")
    assert declared_license(expert) == "gemma"
