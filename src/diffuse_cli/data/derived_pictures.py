"""Pictures that were made from others and lie beside them: masks, depth maps, thumbnails. Judges names alone."""

import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

_KINDS = r"""masks?|masklabel|condlabel|matte|alpha|trimap|seg|segmentation|depth|depths|depth_?map|disparity|normals?|
    normal_?map|canny|edges?|hed|lineart|scribble|sketch|pose|openpose|conditioning|control|thumb|thumbs|thumbnail|tn|
    preview|small|lowres|resized|scaled|\d{2,4}x\d{2,4}"""
_BEHIND = re.compile(rf"(.+?)[-_. ](?:{_KINDS})", re.IGNORECASE | re.VERBOSE)
_BEFORE = re.compile(rf"(?:{_KINDS})[-_. ](.+)", re.IGNORECASE | re.VERBOSE)
# Names of folders. Words that are also names of classes ("normal", "pose") are not among them.
_FOLDERS = re.compile(r"""masks?|trimaps|segmentations?|segmentation(class|object)|gt|ground_?truth|depths?|depth_maps|
    normals|normal_maps|canny|lineart|conditioning|conditioning_images|control|controlnet|thumbs?|thumbnails?|previews?|
    annotations|labels""", re.IGNORECASE | re.VERBOSE)
_SHARE = 0.5                                    # of a folder's pictures that must have the names of others


def warn_of_derived(names: Collection[str], root: Path) -> Iterator[str]:
    """A warning, if some of the pictures are called like others with a word such as "mask" added to the name or path.

    names: those of all pictures that would be trained on, relative to the data set. root: where they lie.
    """
    found = {**_by_folder(names), **_by_name(names)}            # name → (the name of the other, a pattern for both)
    if not found:
        return
    patterns = Counter(pattern for _, pattern in found.values())
    example, (original, _) = next(iter(found.items()))
    counted = ", ".join(f"{pattern} {count:,}" for pattern, count in patterns.most_common(4))
    without = " ".join(f"! -{'path' if pattern.endswith('/*') else 'name'} {shlex.quote(pattern)}"
                       for pattern in patterns)
    step = f"find {shlex.quote(str(root))} -type f {without} > pictures.txt, and give pictures.txt" if root.is_dir() \
        else "save the others in an archive of their own"
    yield (f"{len(found):,} {'picture seems' if len(found) == 1 else 'pictures seem'} to be made from others, as masks "
           f"and thumbnails are, and will be trained on ({counted}; for example {example} from {original}). To leave "
           f"them out: {step}")


def _by_name(names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Pictures called like one in the same folder, with a word before or behind the name: photo_mask.png, tn_1.jpg."""
    bases = {posixpath.splitext(name)[0]: name for name in names}
    found = {}
    for base, name in bases.items():
        folder, stem = posixpath.split(base)
        for pattern in (_BEHIND, _BEFORE):
            if (match := pattern.fullmatch(stem)) and (original := bases.get(posixpath.join(folder, match[1]))):
                word = re.sub(r"\d+x\d+", "[0-9]*x[0-9]*", stem.replace(match[1], "*", 1))
                found[name] = original, f"{word}.*" if pattern is _BEHIND else word
                break
    return found


def _by_folder(names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Pictures in folders such as "masks", if at least half of them are called like pictures in other folders."""
    inside: dict[str, list[str]] = {}           # folder → its pictures
    outside: dict[str, str] = {}                # stem → the first picture
    for name in names:
        parts = posixpath.dirname(name).split("/")
        special = next((part for part in parts if _FOLDERS.fullmatch(part)), None)
        if special is None:
            outside.setdefault(_stem(name), name)
        else:
            inside.setdefault(special, []).append(name)
    found: dict[str, tuple[str, str]] = {}
    for folder, pictures in inside.items():
        originals = {name: original for name in pictures if (original := outside.get(_stem(name)))}
        if len(originals) >= _SHARE * len(pictures):
            found |= {name: (original, f"*/{folder}/*") for name, original in originals.items()}
    return found


def _stem(name: str) -> str:
    stem = posixpath.splitext(posixpath.basename(name))[0].lower()
    return match[1] if (match := _BEHIND.fullmatch(stem)) else stem
