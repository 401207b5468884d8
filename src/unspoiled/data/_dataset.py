"""The rows as Parquet files, which `datasets.load_dataset` reads; the JSON lines beside them are for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from unspoiled.data._rows import Row, SetName, Split
from unspoiled.errors import DataError
from unspoiled.files import MANIFEST_NAME, hash_file, staged_directory, write_json_atomic

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = "parquet"
"""The folder of the Parquet files in a data folder."""
SETS: tuple[SetName, ...] = get_args(SetName)
SPLITS: tuple[Split, ...] = get_args(Split)


def write_dataset(folder: Path, rows: Sequence[Row]) -> dict[tuple[SetName, Split], int]:
    """Write `parquet/SET/SPLIT.parquet` into a data folder, all of them or none; what was there is replaced.

    Args:
        folder: The data folder, which `render_data_card`'s README.md goes into, too.
        rows: The rows of all sets and splits; within a file they keep their order. A set or split without a row has
            no file.

    Returns:
        How many rows each set and split has, without empty ones: what the card's list of files is made from.

    Raises:
        DataError: There are no rows.
        RunDirectoryError: `parquet` exists and holds files that are not ours.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not rows:
        raise DataError(f"{folder / PARQUET}: there are no rows to write. Generate the data first.")
    schema, counts = _schema(), dict[tuple[SetName, Split], int]()
    with staged_directory(folder / PARQUET) as staging:
        for set_name in SETS:
            for split in SPLITS:
                own = [asdict(row) for row in rows if row.set == set_name and row.split == split]
                if own:
                    (staging / set_name).mkdir(exist_ok=True)
                    pq.write_table(pa.Table.from_pylist(own, schema), staging / parquet_file(set_name, split))
                    counts[set_name, split] = len(own)
        files = {path.relative_to(staging).as_posix(): hash_file(path) for path in sorted(staging.rglob("*.parquet"))}
        write_json_atomic(staging / MANIFEST_NAME, {"files": files})
    return counts


def parquet_file(set_name: SetName, split: Split) -> Path:
    """Return the place of a set and split in the folder of Parquet files."""
    return Path(set_name) / f"{split}.parquet"


def _schema() -> pa.Schema:
    """Return the columns, stated so that a file of rows without verdicts has the same as one with."""
    import pyarrow as pa

    text = pa.string()
    verdict = pa.struct(
        {
            "label": text,
            "p_unsafe": pa.float64(),
            "categories": pa.list_(text),
            "refusal": pa.bool_(),
            "defect": text,
            "parse_ok": pa.bool_(),
            "text": text,
            "guard": text,
            "template": text,
        }
    )
    return pa.schema(
        {
            "id": text,
            "set": text,
            "group": text,
            "prompt": text,
            "response": text,
            "asked_by": text,
            "answered_by": text,
            "split": text,
            "asked_by_hash": text,
            "answered_by_hash": text,
            "seed": pa.int64(),
            "verdicts": pa.list_(verdict),
        }
    )
