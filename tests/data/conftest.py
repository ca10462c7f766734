"""Folders for the tests of this room."""

import pytest


@pytest.fixture
def folder(tmp_path):
    """A function that fills a folder: names → text, bytes, or None for something that looks like a picture."""
    root = tmp_path / "pictures"
    root.mkdir()

    def make(files):
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8")
            else:
                path.write_bytes(content or b"picture")
        return root

    return make
