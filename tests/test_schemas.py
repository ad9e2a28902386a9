"""Tables as they are read."""

from __future__ import annotations

import io
import threading

import pyarrow as pa
import pyarrow.parquet as pq

from timnet import schemas


class Watched(io.BytesIO):
    """A file that knows who reads it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.readers: set[int] = set()

    def read(self, size: int | None = -1) -> bytes:
        self.readers.add(threading.get_ident())
        return super().read(size)


def test_no_thread_of_arrow_holds_the_file() -> None:
    """One that lets go of it while the interpreter ends would abort the process."""
    content = io.BytesIO()
    table = pa.table({"x": range(100_000), "y": range(100_000)})
    pq.write_table(table, content, row_group_size=10_000)
    file = Watched(content.getvalue())
    assert schemas.parse(file).equals(table)
    assert file.readers == {threading.get_ident()}
