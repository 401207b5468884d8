"""The data folder is a dataset: `datasets` reads back the rows that were written."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from card import card_inputs
from rows import ODD_ROWS, VERDICT, row

from unspoiled.data import DataCardInputs, Row, render_data_card, write_dataset
from unspoiled.data._dataset import _schema
from unspoiled.errors import DataError, RunDirectoryError
from unspoiled.guards import Verdict


def as_read(one: Row) -> dict[str, Any]:
    """Return a row as `datasets` gives it: tuples are lists."""
    values = asdict(one)
    verdicts = [{**verdict, "categories": list(verdict["categories"])} for verdict in values["verdicts"]]
    return {**values, "verdicts": verdicts}


def load(folder: Path, set_name: str, split: str) -> list[dict[str, Any]]:
    import datasets

    cache = folder.parent / "cache"
    return list(datasets.load_dataset(str(folder), set_name, split=split, cache_dir=str(cache)))


def test_datasets_reads_the_folder_through_its_card(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    counts = write_dataset(folder, ODD_ROWS)
    (folder / "README.md").write_text(render_data_card(card_inputs(splits=counts)), encoding="utf-8")
    (folder / "safety.jsonl").write_text("{}\n")  # what people open stays out of it
    assert load(folder, "safety", "search") == [as_read(one) for one in ODD_ROWS[:2]]
    assert load(folder, "expert", "search") == [as_read(ODD_ROWS[2])]
    assert load(folder, "expert", "selection") == [as_read(ODD_ROWS[3])]


def test_sets_and_splits_without_rows_have_no_file_and_no_place_in_the_card(tmp_path: Path) -> None:
    import datasets

    counts = write_dataset(tmp_path, ODD_ROWS)
    files = sorted(path.relative_to(tmp_path / "parquet").as_posix() for path in tmp_path.rglob("*.parquet"))
    assert files == ["expert/search.parquet", "expert/selection.parquet", "safety/search.parquet"]
    assert counts == {("safety", "search"): 2, ("expert", "search"): 1, ("expert", "selection"): 1}
    (tmp_path / "README.md").write_text(render_data_card(card_inputs(splits=counts)), encoding="utf-8")
    assert datasets.get_dataset_config_names(str(tmp_path)) == ["safety", "expert"]


def test_what_was_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_dataset(tmp_path, ODD_ROWS)
    write_dataset(tmp_path, [row("What is rain?", "Water.", "benign", "everyday", "search")])
    assert [path.name for path in (tmp_path / "parquet").iterdir() if path.is_dir()] == ["benign"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parquet"], "nothing is left beside it"


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    write_dataset(tmp_path, ODD_ROWS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UnicodeEncodeError):
        write_dataset(tmp_path, [*ODD_ROWS[2:], row("half a character \ud83d", split="search")])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "mine.parquet").write_text("mine")
    with pytest.raises(RunDirectoryError, match=r"mine\.parquet"):
        write_dataset(tmp_path, ODD_ROWS)


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows to write"):
        write_dataset(tmp_path, [])


def test_every_field_of_a_row_and_a_verdict_has_a_column() -> None:
    """pyarrow leaves out what its schema doesn't name."""
    schema = _schema()
    assert schema.names == [field.name for field in fields(Row)]
    verdict = schema.field("verdicts").type.value_type
    assert [verdict.field(i).name for i in range(verdict.num_fields)] == [field.name for field in fields(Verdict)]
    assert [field.name for field in fields(Verdict)] == list(asdict(VERDICT))
    assert isinstance(card_inputs(), DataCardInputs)
