"""Helpers for tests of folders of pictures and captions."""

import json


def captions_of(found):
    """Name of each picture → its captions."""
    return {picture.name: picture.captions for picture in found.pictures}


def rows(*entries):
    """The text of a `metadata.jsonl` with these rows."""
    return "\n".join(json.dumps(entry) for entry in entries)
