"""Captions from inside the pictures: the prompt of the program that generated one, or what a person wrote into it."""

import io
from pathlib import Path
from typing import IO

from .containers import File, Location
from .file_tree import Tree
from .generated_prompts import PROMPT_TEXTS, prompt_in, prompt_of_parameters, without_signs
from .picture_descriptions import MAX_BYTES, description_in
from .picture_files import ImageRefused, open_regular
from .png_texts import first_text
from .source_captions import SourceCaptions
from .spilled import SpilledTuples

_LOOKED_AT = 50                                 # pictures, evenly spread, by which is seen whether there are texts
_EXIF = 2**16                                   # bytes from the start or end of a file in which Exif lies
_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp")


def read_embedded(tree: Tree, *, always: bool = False) -> SourceCaptions:
    """The texts in the pictures of a tree; none of them, but a note, if most pictures have none.

    The same is done if most of the texts are the same, as cameras and programs write them. always: read them even then.
    """
    source = SourceCaptions("texts in the pictures", present=False)
    step = max(1, len(tree.pictures) // _LOOKED_AT)
    some = [tree.pictures[position] for position in range(0, len(tree.pictures), step)]
    texts = [_text_of(file) for file in some]
    found = [text for text, _ in texts if text]
    prompts = sum(is_prompt for _, is_prompt in texts)
    differ = len(found) <= 2 or 2 * len(set(found)) > len(found) or 2 * prompts > len(found)
    if always or (2 * len(found) > len(some) and differ):
        source.by_name = SpilledTuples(
            (file.name, (text,)) for file in tree.pictures if (text := _text_of(file)[0]))
        source.present = bool(source.by_name)
    elif found:
        which = "the prompt of the program that made them" if 2 * prompts > len(found) else "a description"
        source.notes.append(f"{len(found):,} of {len(some):,} pictures that were looked at "
                            f"{'holds' if len(found) == 1 else 'hold'} {which}, for example “{found[0][:60]}”, which "
                            "is not used; --captions embedded would use such texts")
    return source


def _text_of(file: File) -> tuple[str, bool]:
    """The prompt in a picture, else what a person wrote into it, "" without either; and whether it is a prompt."""
    if file.suffix not in _SUFFIXES:
        return "", False
    try:
        with _open(file.path) as data:
            if prompt := _prompt_in(data, file.suffix):
                return prompt, True
            data.seek(0)
            return description_in(data), False
    except (ImageRefused, OSError):
        return "", False


def _prompt_in(data: IO[bytes], suffix: str) -> str:
    """The prompt in a picture; "" without any. Raises OSError."""
    try:
        prompt = prompt_in(*first_text(data, PROMPT_TEXTS)) if suffix == ".png" else \
            prompt_of_parameters(_user_comment(data).splitlines())
    except ImageRefused:
        return ""
    return " ".join(without_signs(prompt or "").split())


def _open(path: Location) -> IO[bytes]:
    """A picture, or the beginning of one in an archive. Raises ImageRefused, OSError."""
    return open_regular(path) if isinstance(path, Path) else io.BytesIO(path.head(MAX_BYTES))


def _user_comment(file: IO[bytes]) -> str:
    """The comment in the Exif of a JPEG or WebP, with what lies behind it; "" without any."""
    data = file.read(_EXIF)
    if data.startswith(b"RIFF"):                # there it is at the end
        file.seek(max(0, file.seek(0, io.SEEK_END) - _EXIF))
        data = file.read(_EXIF)
    _, mark, comment = data.partition(b"UNICODE\0")
    return comment.decode("utf-16-be" if comment[:1] == b"\0" else "utf-16-le", "ignore") if mark else ""
