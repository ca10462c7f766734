"""Parquet and Arrow files whose rows hold pictures → the files of a data set, captions, and names for the rows."""

import posixpath
from pathlib import Path

from .arrow_files import ArrowTable, Cell
from .caption_tables import CaptionTable, captions_of_rows
from .containers import File
from .file_columns import known_columns, name_in
from .file_tree import FileList, Tree
from .picture_index import plain_path
from .source_captions import SourceCaptions
from .spilled import SpilledDict


def read_shards(tables: list[tuple[str, Path]], root: Path, column: str | None) -> tuple[Tree, SourceCaptions] | None:
    """The pictures in the rows of files, with their captions; None if no file has a column of pictures.

    tables: each with the folder in the names of its pictures, which are the numbers of their rows. Those without
    pictures are the other files of the tree.
    """
    pictures, others = FileList(), FileList()
    source = SourceCaptions("", present=True)
    images_of: list[tuple[str, Path, str]] = []         # the same with the column of pictures
    for prefix, path in tables:
        table = ArrowTable(path)
        images = table.image_column()
        if images is None:
            if path.suffix.lower() == ".parquet":       # a table of captions, perhaps
                others.append(File(path.relative_to(root).as_posix(), path))
            else:
                source.notes.append(f"{path.name} is not used: no column of it holds pictures")
            continue
        images_of.append((prefix, path, images))
        told = CaptionTable(File(path.name, path))
        if more := [name for name in table.columns_of_bytes() if name != images]:
            told.notes.append(f"pictures are taken from the column {images} of {path.name}, and not from "
                              f"{', '.join(more)[:200]}")
        if table.is_list(images):
            told.notes.append(f"of each list in the column {images} of {path.name}, the first picture counts")
        captions = captions_of_rows(told, table.texts(images), column)
        for row, texts in zip(range(table.rows), captions, strict=True):
            file = File(_name(prefix, row), Cell(path, images, row))
            pictures.append(file)
            if texts:
                source.by_name[file.name] = texts
        source.problems += told.problems
        source.warnings += told.warnings
        source.notes += told.notes
    if not pictures:
        return None
    source.label = images_of[0][1].name if len(images_of) == 1 else f"{len(images_of):,} shards"
    return Tree(root, pictures, others, (), (),
                written_names=lambda notes: _written_names(images_of, len(pictures), notes)), source


def _name(prefix: str, row: int) -> str:
    return posixpath.join(prefix, f"{row:08d}")


def _written_names(shards: list[tuple[str, Path, str]], rows: int, notes: list[str]) -> SpilledDict[str]:
    """What tables may call the pictures, for instance the path that stands beside the bytes → their names.

    It is taken from each column that names every row, and no two rows alike. shards: as in `read_shards`, with the
    column of pictures. rows: of all. notes: gets a sentence about these columns.
    """
    image = shards[0][2]
    columns = (image, *known_columns([name for name in ArrowTable(shards[0][1]).names if name != image]))
    of_columns = {column: SpilledDict[str]() for column in columns}
    for prefix, path, images in shards:
        for number, row in enumerate(ArrowTable(path).names_in_rows(images, tuple(of_columns))):
            for column in tuple(of_columns):
                if (written := name_in(row.get(column))) is None:
                    del of_columns[column]
                else:
                    of_columns[column][plain_path(written)] = _name(prefix, number)
    known: SpilledDict[str] = SpilledDict()
    used = []
    for column, names in of_columns.items():
        if len(names) == rows and all(known.get(written, name) == name for written, name in names.items()):
            known.update(names.items())
            used.append(column)
    first = _name(shards[0][0], 0)
    notes.append(f"a table may call the rows of shards as the column {' or '.join(used)} does: "
                 f"{next(iter(known))[:100]} is {first}" if used else
                 f"no column of the shards has a name for every row, so a table calls them {first} and so on")
    return known
