"""The same pictures and captions as a folder, an archive, or rows of a parquet or Arrow file."""

import io
import json
import tarfile
import zipfile

import pyarrow
from PIL import Image
from pyarrow import ipc, parquet

from diffuse_cli.data.dataset import open_dataset


def png(number, side=16):
    """The bytes of a picture of its own colour."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (number * 20, 255 - number * 20, 7)).save(stream, "PNG")
    return stream.getvalue()


FILES = {**{f"{number}.png": png(number) for number in range(10)},
         **{f"{number}.txt": f"picture {number}".encode() for number in range(10)}}
EXPECTED = {f"{number}.png": (f"picture {number}",) for number in range(10)}


def write_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


WRITERS = {"a.zip": write_zip, "a.tar": write_tar}


def opened(found, directory):
    generator = open_dataset(found, resolution=16, directory=directory)
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def write_arrow(path, rows, *, features=None, groups=4):
    table = pyarrow.Table.from_pylist(rows)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=groups)
        return path
    with pyarrow.OSFile(str(path), "wb") as file, ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=groups)
    return path
