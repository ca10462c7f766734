"""Captions from sidecar files, names of folders and names of files; `metadata_files` reads the remaining source.

Every reader takes the tree of files and returns a `SourceCaptions`; `captions` decides which source counts. Standard
library only.
"""

import json
import posixpath
import re
from collections import Counter

from .caption_text import SourceCaptions, captions_under, distinct_captions, tidy
from .folders import File, Tree

SIDECAR_SUFFIXES = (".txt", ".caption", ".json")
SIDECAR_KEYS = ("caption", "text", "prompt")    # of a JSON sidecar; the first that holds a caption counts
SIDECAR_LIMIT = 64 * 1024                       # maximum bytes of a sidecar file; a longer file is no caption
WORDY_STEMS = 0.8                               # minimum share of file names that hold a word, to be captions

_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
_NOT_SIDECARS = frozenset(("readme", "license", "licence", "notice", "classes", "labels", "requirements"))


# ── Sidecar files ───────────────────────────────────────────────────────────────────────────────────────────────────


def read_sidecars(tree: Tree, *, extension: str | None) -> SourceCaptions:
    """Captions of `photo.txt`, `photo.caption` or `photo.json` beside `photo.png`: the first file that holds any.

    With `extension`, only files with that suffix are read.
    """
    suffixes = (f".{extension.lower().lstrip('.')}",) if extension else SIDECAR_SUFFIXES
    files = {(file.base, file.suffix): file for file in tree.others if file.suffix in suffixes}
    source = SourceCaptions("", present=False)

    # Captions of each picture
    used: Counter[str] = Counter()
    contents: dict[tuple[str, str], tuple[str, ...] | None] = {}
    for picture in tree.pictures:
        for suffix in suffixes:
            key = picture.base, suffix
            if key not in files:
                continue
            if key not in contents:             # a.jpg and a.png share a.txt
                contents[key] = _read_sidecar(files[key], source)
            captions = contents[key]
            source.present = source.present or captions is not None
            if captions:
                source.by_name[picture.name] = captions
                used[suffix] += 1
                break
    source.label = f"sidecar {', '.join(sorted(used, key=suffixes.index)) or suffixes[0]}"

    # Sidecars that cannot be opened, and sidecars of no picture
    stems = {picture.base for picture in tree.pictures}
    stems |= {posixpath.splitext(name)[0] for name, _ in tree.unusable}
    source.problems += [(file.name, reason) for file, reason in tree.irregular
                        if file.base in stems and file.suffix in suffixes]
    if source.present:
        source.problems += [(file.name, "caption without a picture") for (base, suffix), file in files.items()
                            if base not in stems and suffix in used
                            and posixpath.basename(base).lower() not in _NOT_SIDECARS]
    return source


def _read_sidecar(file: File, source: SourceCaptions) -> tuple[str, ...] | None:
    """The alternative captions, one for each line; None when the file is no caption at all."""
    try:
        with open(file.path, "rb") as stream:
            data = stream.read(SIDECAR_LIMIT + 1)
    except OSError:
        source.problems.append((file.name, "unreadable"))
        return None
    if len(data) > SIDECAR_LIMIT:
        if file.suffix != ".json":              # a big JSON file describes something else
            source.problems.append((file.name, "longer than 64 KB, ignored"))
        return None
    text = data.decode("utf-8", "replace")
    if "\ufffd" in text and text.encode() != data:
        source.problems.append((file.name, "invalid UTF-8"))
    if file.suffix != ".json":
        return distinct_captions(text.removeprefix("\ufeff").splitlines())
    try:
        content = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        source.problems.append((file.name, "not JSON"))
        return None
    if not isinstance(content, dict) or not any(key in content for key in SIDECAR_KEYS):
        return None
    return captions_under(SIDECAR_KEYS, content, file.name, source)


# ── Names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_folder_names(tree: Tree, *, template: str) -> SourceCaptions:
    """The name of the innermost folder of each picture, put into `template` in the place of "{label}".

    `present` only if the folders look like labels: at least two names, all pictures at one depth, and not just the
    names of splits.
    """
    labels = {picture.name: posixpath.basename(picture.directory) for picture in tree.pictures if picture.directory}
    depths = {picture.name.count("/") for picture in tree.pictures}
    names = set(labels.values())
    looks_like_labels = len(names) >= 2 and len(depths) == 1 and not {name.lower() for name in names} <= _SPLITS
    source = SourceCaptions("folder name", looks_like_labels)
    numbered = {name for name in names if re.match(r"\d+_\S", name)}
    for picture, name in labels.items():
        label = re.sub(r"^\d+_(?=\S)", "", name)
        if caption := tidy(re.sub(r"[_-]+", " ", label)):
            source.by_name[picture] = (tidy(template.replace("{label}", caption)),)
    if numbered:
        source.warnings.append(f"the number in front of {min(numbered)!r} is not part of the caption, "
                               "and pictures are not repeated")
    return source


_DEVICE = re.compile(r"""^(?:img|dsc[nf]?|dcim|pxl|mvimg|vid|gopr|sam|imag|image|photo|picture|pic|frame|file|untitled|
                         download|scan|whatsapp[\s_-]image|screen[\s_-]?shot(?:[\s_-]from)?)(?=[\W_]*(?:\d|$))""",
                     re.IGNORECASE | re.VERBOSE)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_HEX = re.compile(r"(?=[a-f]*\d)[0-9a-f]{6,}", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{3,}")


def words_of_stem(stem: str) -> str:
    """The words of a file name, without counters, dates, hashes and camera prefixes.

    'IMG_2041' → '', 'red_car-0012' → 'red car'.
    """
    text = _DEVICE.sub(" ", _UUID.sub(" ", stem))
    tokens = re.split(r"[\s_\-.,;+()\[\]]+", text)
    kept = (re.sub(r"\d+$", "", token) for token in tokens if not _HEX.fullmatch(token))
    return tidy(" ".join(token for token in kept if token and not token[0].isdigit()))


def read_file_names(tree: Tree) -> SourceCaptions:
    """The words in the names of the files; `present` if at least 80 % of the names hold a word of three letters."""
    captions = {picture.name: words_of_stem(posixpath.basename(picture.base)) for picture in tree.pictures}
    wordy: dict[str, tuple[str, ...]] = {name: (caption,) for name, caption in captions.items()
                                         if _WORD.search(caption)}
    return SourceCaptions("file name", len(wordy) >= WORDY_STEMS * len(captions), wordy)
