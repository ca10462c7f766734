"""Captions from sidecar files: a text beside each picture, or in a folder of texts.

The reader takes the tree of files and returns a `SourceCaptions`; `captions` decides which source counts.
"""

import functools
import itertools
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from .annotations import normalised
from .file_tree import Tree, name_of_key, sort_key
from .numbered_texts import NumberedFiles, match_by_number
from .picture_index import FOLDER_TEXTS, NOT_SIDECARS, PictureIndex
from .sidecar_texts import SIDECAR_KEYS, SidecarReader
from .source_captions import SourceCaptions
from .spilled import SpilledDict, SpilledList, SpilledLists

SIDECAR_SUFFIXES = (".txt", ".caption", ".json", ".captions", ".tags", ".xmp")
ORPHAN = "caption without a picture"             # the reason of a text that belongs to none

# What follows the name of a picture in that of its text, p_caption.txt; and in its own, where a text serves p_1 to p_3.
_WORD_BEHIND = re.compile(r"(.+?)[-_ ]+(?:captions?|prompts?|descriptions?|tags|text)", re.IGNORECASE)
_NEGATIVE_BEHIND = re.compile(r"(.+?)[-_. ]neg(?:ative)?(?:[-_ ]prompt)?", re.IGNORECASE)
_WORD_AS_SUFFIX = re.compile(r"\.[A-Za-z_]+$")
_ENGLISH = re.compile(r"[._-]en(?:[_-][A-Z]{2})?\.\w+$|(?:^|/)en(?:g|glish)?/", re.IGNORECASE)
_LANGUAGE_BEHIND = re.compile(r"(.+)[_-][a-z]{2}(?:[_-][A-Z]{2})?")                 # photo_en.txt
_LANGUAGE_AT_END = re.compile(r"[._-][a-z]{2}(?:[_-][A-Z]{2})?$")                   # photo_caption.en-US.txt
_LANGUAGE_FOLDER = re.compile(r"(?:^|(?<=/))(?:[a-z]{2}|english|german|french|spanish|chinese|japanese)/")
_NUMBER_BEHIND = re.compile(r"(.*\d.*?)[-_ ]\d{1,3}")
# photo.jpg.supplemental-metadata(2).json and photo.jpg(2).json, as Google Takeout writes for photo(2).jpg.
_NUMBERED_COPY = re.compile(r"(.+?)(\.\w{2,5})(?:\.[\w-]+)?(\(\d+\))")
# photo-edited.jpg, which Google Takeout writes beside photo.jpg, in the language of the user.
_EDITED = re.compile(r"(.+)-(?:edited|bearbeitet|modifié|modifiée|editado|editada|editat|modificato|modificata|bewerkt|"
                     r"edytowane|upraveno|redigerad|redigert|redigeret|muokattu|düzenlendi|szerkesztett|измененный|"
                     r"изменено|编辑|已编辑|已編輯|編集済み|수정됨)((?:\(\d+\))?)", re.IGNORECASE)
_CUT = 46                                       # letters of a long name of a picture that Takeout leaves
_SHARED = 20                                    # maximum pictures that one text serves in this way


def read_sidecars(tree: Tree, *, extension: str | None, joined: bool = False, asked: bool = False) -> SourceCaptions:
    """Captions of `photo.txt` beside `photo.png`, or of one of the other SIDECAR_SUFFIXES: the first that holds any.

    `photo.png.txt`, names with “_caption” behind or that differ in case, and `captions/photo.txt` beside
    `images/photo.png` count as well. `2024-01-31.txt` is also of `2024-01-31_1.jpg` and its like, if these have no text
    of their own. With `extension`, only files with that suffix are read. joined: whether the lines of a file are one
    caption. asked: whether the user asked for these files, so that fewer of them must have the numbers of pictures if
    no name fits.
    """
    suffixes = (f".{extension.lower().lstrip('.')}",) if extension else SIDECAR_SUFFIXES
    source = SourceCaptions("", present=False)
    owned, spare, apart = _files_of_pictures(tree, suffixes)
    numbered = functools.cache(lambda: NumberedFiles(tree.pictures.names()))
    for suffix, of_pictures in owned.items():
        if not of_pictures:
            of_pictures.update(match_by_number(with_suffix(suffix, tree), numbered, spare=spare, loosely=asked))
            source.notes += [f"texts are captions of the pictures with their numbers: {text} is that of {picture}"
                             for picture, text in itertools.islice(of_pictures.items(), 1)]
        source.files.update((name, None) for _, name in of_pictures.items())
    reader = SidecarReader(source, joined)
    if owned:
        reader.read(file for file in tree.others if file.name in source.files)

    # Captions of each picture
    used: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    several = 0                                 # pictures with more than one caption
    for picture in tree.pictures.names() if owned else ():
        for suffix in (suffix for suffix in suffixes if suffix in owned):
            if (file := owned[suffix].get(picture)) is None:
                continue
            captions = reader.captions.get(file)
            if picture in source.by_name:               # another file's captions count
                lost[suffix] += captions is not None and captions != source.by_name[picture]
                continue
            source.present = source.present or captions is not None
            if captions:
                source.by_name[picture] = captions
                used[suffix] += 1
                several += len(captions) > 1
    source.label = f"sidecar {', '.join(sorted(used or owned, key=suffixes.index)) or suffixes[0]}"
    source.notes += _notes(source, reader, lost, mostly_several=several > sum(used.values()) / 2)
    if source.by_name and apart:
        source.notes.append(f"texts in {apart[0] or 'the folder above'} are captions of the pictures with their names")
    (source.notes if source.by_name else source.warnings).extend(_without_captions(source, reader))

    # Sidecars that cannot be opened, and sidecars of no picture
    _report_others(source, tree, used, spare)
    return source


def with_suffix(suffix: str, tree: Tree) -> Iterator[str]:
    """The names of files that are no pictures with a suffix, in capital letters or not."""
    return (name for name in tree.others.names() if posixpath.splitext(name)[1].lower() == suffix)


def _notes(
    source: SourceCaptions, reader: SidecarReader, lost: Counter[str], *, mostly_several: bool,
) -> Iterator[str]:
    """What there is to say about the files that were read. lost: number of files by suffix that hold other captions.

    mostly_several: whether most pictures with captions have more than one.
    """
    kind = source.label.removeprefix("sidecar ")
    yield from (f"{count:,} {suffix} files are not used, because {kind} files count; "
                f"--caption-ext {suffix} would use them"
                for suffix, count in lost.items() if count)
    yield from reader.notes_of_encodings()
    if not reader.joined and mostly_several:
        yield ("each line of a caption file is a caption of its own, and training picks one at random; "
               "--join-lines makes each file one caption")
    if reader.translated:
        yield f"{reader.translated:,} text files hold translations, of which only the first language counts"
    if reader.generated:
        yield f"{reader.generated:,} text files hold settings of generated pictures, of which only the prompt counts"
    if reader.labelled:
        yield f"{reader.labelled:,} text files have parts with labels, of which only the caption or the like counts"
    if reader.boxes:
        yield f"{reader.boxes:,} text files hold only numbers, as boxes for object detection, and no caption"
    if reader.settings:
        yield f"{reader.settings:,} text files hold settings of a program, as “width = 640” is one, and no caption"


def _without_captions(source: SourceCaptions, reader: SidecarReader) -> Iterator[str]:
    """What there is to say about files in which no caption was found."""
    problems = {name for name, _ in source.problems}
    silent, first = 0, ""
    if not source.by_name and source.present:
        yield f"{len(source.files):,} caption files hold no text, for example {min(source.files)}"
    if outlines := len(reader.outlines):
        files = "1 .json file marks objects in its picture" if outlines == 1 else (
            f"{outlines:,} .json files mark objects in their pictures")
        yield (f"{files}, which is no caption, for example {next(iter(reader.outlines))}; to describe the pictures, "
               "write a table with the name of a picture and its caption in each line")
    for name in source.files:
        if name.endswith(".json") and name not in reader.captions and name not in problems and (
                name not in reader.outlines):
            silent, first = silent + 1, first or name
    if silent:
        files = "1 .json file beside a picture holds" if silent == 1 else f"{silent:,} .json files beside pictures hold"
        yield (f"{files} no caption under {', '.join(SIDECAR_KEYS[:4])}, tags or title, for example {first}")


def _files_of_pictures(
    tree: Tree, suffixes: tuple[str, ...],
) -> tuple[dict[str, SpilledDict[str]], SpilledDict[None], list[str]]:
    """Suffix → picture → the file that belongs to it. A name that fits exactly goes before one that fits leniently.

    Besides, the files of pictures to which another one belongs already, and those of `_folders_of_texts` that count.
    """
    owned: dict[str, SpilledDict[str]] = {}
    spare: SpilledDict[None] = SpilledDict()
    rest = SpilledList()
    has_edited: bool | None = None
    for file in tree.others.names():
        base, suffix = posixpath.splitext(file)
        if (suffix := suffix.lower()) not in suffixes:
            continue
        of_pictures = owned.setdefault(suffix, SpilledDict())
        if has_edited is None:
            has_edited = any(_EDITED.fullmatch(posixpath.splitext(name)[0]) for name in tree.pictures.names())
        exact = [name for name in tree.by_base.get(base.casefold()) if posixpath.splitext(name)[0] == base]
        of_pictures.update((name, file) for name in exact)              # a.jpg and a.png share a.txt
        if not exact or has_edited:
            rest.append((sort_key(file),))
    if not rest:
        return owned, spare, []
    lenient, numbered, cut = SpilledLists(), SpilledLists(), SpilledLists()
    for name in tree.pictures.names():
        base = posixpath.splitext(name)[0]
        folder, key = posixpath.split(base)
        shared = posixpath.join(folder, key.split(".")[0])              # 0001.input.png and 0001.txt, as in WebDataset
        for written in {name.casefold(), base.casefold(), shared.casefold()}:
            lenient.add(written, name)
        if match := _EDITED.fullmatch(base):    # after the picture itself, and only if this has no text of its own
            for written in (match[1] + match[2], match[1] + match[2] + posixpath.splitext(name)[1]):
                lenient.add(written.casefold(), name)
        if len(posixpath.basename(name)) > _CUT:
            cut.add(name[: len(folder) + bool(folder) + _CUT].casefold(), name)
        if match := _NUMBER_BEHIND.fullmatch(base.casefold()):
            numbered.add(match[1], name)
    index = PictureIndex(tree.pictures.names)
    apart = _folders_of_texts(rest.column(0, name_of_key), tree, index)
    english = (file for file in rest.column(0, name_of_key) if _ENGLISH.search(file))      # goes before translations
    for file in itertools.chain(english, rest.column(0, name_of_key)):
        base, suffix = posixpath.splitext(file)
        if copy := _NUMBERED_COPY.fullmatch(base):
            base = f"{copy[1]}{copy[3]}{copy[2]}"
        longer = posixpath.splitext(base)[0]                            # 0001.jpg.more.json, 0001.en.txt
        named = _WORD_BEHIND.fullmatch(_LANGUAGE_AT_END.sub("", base)) or _LANGUAGE_BEHIND.fullmatch(base)
        of_post = numbered.get(base.casefold())
        names = lenient.get(base.casefold()) or lenient.get(longer.casefold()) or lenient.get(
            _WORD_AS_SUFFIX.sub("", longer).casefold()) or (                # 0001.caption.en.txt
            lenient.get(named[1].casefold()) if named else []) or _parallel(base, index) or (
            of_post if len(of_post) <= _SHARED else []) or cut.get(base.casefold())[:1]
        of_pictures, folder = owned[suffix.lower()], posixpath.dirname(base)
        if not names and folder in apart and (only := index.find_only(base)):
            names, apart[folder] = [only], apart[folder] or only not in of_pictures
        free = [name for name in dict.fromkeys(names) if name not in of_pictures]
        of_pictures.update((name, file) for name in free)
        if names and not free:
            spare[file] = None
    return owned, spare, [folder for folder, counts in apart.items() if counts]


def _parallel(base: str, index: PictureIndex) -> list[str]:
    """The picture images/a/1.png of the text captions/a/1 or en/a/1 (`base`, without its suffix), if there is one."""
    found = index.find_parallel(base) or index.find_parallel(_LANGUAGE_FOLDER.sub("", base))
    return [found] if found else []


def _folders_of_texts(texts: Iterable[str], tree: Tree, index: PictureIndex) -> dict[str, bool]:
    """The folders without pictures in which at least half of the texts are called like one picture, wherever it lies.

    A single text may be called so by chance, as train.txt is. Folders that say what they hold, as captions does, are
    not among them. → each with False
    """
    all_texts: Counter[str] = Counter()
    fitting: Counter[str] = Counter()
    for file in texts:
        base = posixpath.splitext(file)[0]
        if (folder := posixpath.dirname(file)) not in tree.directories and not _parallel(base, index):
            all_texts[folder] += 1
            fitting[folder] += index.find_only(base) is not None
    return {folder: False for folder, count in fitting.items() if 1 < count >= all_texts[folder] / 2}


def _report_others(source: SourceCaptions, tree: Tree, used: Counter[str], spare: SpilledDict[None]) -> None:
    """Add the sidecars that cannot be opened, and those of no picture, to the problems. spare: `_files_of_pictures`."""
    unusable = {posixpath.splitext(name)[0].casefold() for name, _ in tree.unusable}
    unusable |= {name.casefold() for name, _ in tree.unusable}

    def is_of_picture(base: str) -> bool:
        return base.casefold() in unusable or base.casefold() in tree.by_base

    source.problems += [(file.name, reason) for file, reason in tree.irregular
                        if file.suffix in SIDECAR_SUFFIXES and is_of_picture(file.base)]
    no_orphans = NOT_SIDECARS | FOLDER_TEXTS
    places = functools.cache(lambda: set(tree.directories) | {posixpath.dirname(name) for name in source.files})
    more, first = 0, ""                         # texts of pictures that have another
    negative = 0                                # texts with what a picture should not show
    for name in tree.others.names() if source.present else ():
        base, suffix = posixpath.splitext(name)
        if (suffix.lower() in used and name not in source.files and not is_of_picture(base)
                and no_orphans.isdisjoint((posixpath.basename(base).lower(), normalised(posixpath.basename(base))))
                and base not in tree.directories):
            if (match := _NEGATIVE_BEHIND.fullmatch(base)) and is_of_picture(match[1]):
                negative, source.files[name] = negative + 1, None
                continue
            if name in spare or is_of_picture(posixpath.splitext(base)[0]):
                more, first, source.files[name] = more + 1, first or name, None
                continue
            if posixpath.dirname(name) in places():     # else it is no text of a picture, and is named as other texts
                source.problems.append((name, ORPHAN))
    if negative:
        source.notes.append(f"{negative:,} texts are negative prompts by their names, and no captions")
    if more:
        texts = "1 more text is" if more == 1 else f"{more:,} more texts are"
        source.notes.append(f"{texts} not used, because the pictures have a text already, for example {first}")
