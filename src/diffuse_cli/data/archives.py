"""The files in zip and tar archives, which are read in place: a data set that was never unpacked.

An archive means what unpacking it would leave on the disk: of several members of one name the last counts, and a link
is the file that it leads to.
"""

import itertools
import posixpath
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import DataError
from ..files.input_files import NOT_REGULAR, check_input, open_input
from .code_pages import NAME_PAGES, guess_among
from .containers import ARCHIVE_LIMIT, DAMAGE, PACKED, File, Member, TarHeaders
from .file_tree import BROKEN_LINK, Backups, FileList, Tree, head_of, judge_contents
from .file_types import HEAD, NO_PICTURE, PICTURE, judge_suffix, picture_suffixes, remedies, what_else
from .litter import litter_label
from .text_files import is_unicode

_ARCHIVES = (".zip", ".tar")
_COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")      # to be unpacked first
MAX_NAME = 255                                  # letters of a file or folder; no file system has more
_ENCRYPTED, OUTSIDE, NO_NAME = "encrypted", "leads out of the archive", "a name that no file can have"
_DOS = "cp437"                                  # how the library reads the names in a zip that have no mark
_IS_ENCRYPTED, _IS_UTF8 = 0x1, 0x800            # marks of a member of a zip
_SAMPLE = 100_000                               # members by whose names their encoding is guessed
_LINKS = 40                                     # maximum links that are followed to a file, as Linux has it


def is_archive(name: str) -> bool:
    """Whether a file with this name is an archive, perhaps one that must be unpacked first."""
    return name.lower().endswith((*_ARCHIVES, *_COMPRESSED_TARS))


def expand(root: Path, archives: Iterable[tuple[str, Path]]) -> Tree:
    """The files in archives: a name begins with the first of its archive's pair.

    Raises DataError if an archive cannot be read, or is a compressed tar.
    """
    readable = picture_suffixes()
    pictures, others = FileList(), FileList()
    unusable: list[tuple[str, str]] = []
    litter: Counter[str] = Counter()
    backups = Backups()
    notes: list[str] = []
    unread: dict[str, list[str]] = {}           # reason → members that are no pictures
    for prefix, path in archives:
        for inner, member in _members(path, notes):
            name = unicodedata.normalize("NFC", inner)
            if label := next(filter(None, map(litter_label, re.sub(r"^(\.\./)+", "", name).split("/"))), None):
                litter[label] += 1
                continue
            name = posixpath.join(prefix, name)
            backups.note(name)
            judgement = judge_suffix(posixpath.splitext(name)[1].lower(), readable)
            if isinstance(member, str):
                if judgement == PICTURE:
                    unusable.append((name, member))
                else:
                    unread.setdefault(member, []).append(name)
                continue
            judgement = judge_contents(member, judgement)
            if judgement == PICTURE:
                pictures.append(File(name, member))
            elif judgement == NO_PICTURE:
                others.append(File(name, member))
            else:
                unusable.append((name, judgement))
    (pictures, first), (others, second) = map(_last_of_each_name, (pictures, others))
    pictures, others = backups.left_out(pictures, others, litter)
    return Tree(root, pictures, others, tuple(sorted(unusable)), (), tuple(litter.most_common()),
                (*notes, *_describe_replaced(first + second), *_describe_unread(unread)))


def first_files(path: Path, count: int) -> list[File]:
    """The first files in an archive, those that can be read. Raises DataError if the archive cannot be read."""
    members = ((name, member) for name, member in _members(path, []) if not isinstance(member, str))
    return [File(unicodedata.normalize("NFC", name), member) for name, member in itertools.islice(members, count)]


def _last_of_each_name(files: FileList) -> tuple[FileList, list[str]]:
    """Files in the order of an archive → sorted; of several with one name only the last. The names of the others."""
    files.sort()
    replaced = [name for name, following in itertools.pairwise(files.names()) if name == following]
    if replaced:
        files = FileList(deque(of_name, maxlen=1)[0] for _, of_name in itertools.groupby(
            files, lambda file: file.name))
    return files, replaced


def _describe_replaced(names: list[str]) -> Iterator[str]:
    if names:
        count = f"{len(names):,} {'member' if len(names) == 1 else 'members'}"
        yield f"{count} of archives replaced by a later one of the same name, for example {names[0]}"


def _describe_unread(unread: dict[str, list[str]]) -> Iterator[str]:
    for reason, names in unread.items():
        count = "1 other member of archives is" if len(names) == 1 else f"{len(names):,} other members of archives are"
        yield f"{count} not read ({reason}), for example {names[0][:100]}"


# ── Members ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _members(path: Path, notes: list[str]) -> Iterator[tuple[str, Member | str]]:
    """The names of the files in an archive, as relative POSIX paths, in its order, links last.

    In the place of a member that cannot be read stands the reason. notes: gets a sentence if the encoding of names had
    to be guessed. Raises DataError if the archive cannot be read, or is a compressed tar or a part of a zip.
    """
    if path.with_suffix(".z01").exists():
        raise DataError(f"{path} is the last part of a split archive",
                        hint=f"Join its parts first: zip -s 0 {path} --out whole.zip")
    if path.name.lower().endswith(_COMPRESSED_TARS):
        raise DataError(f"{path} is a compressed tar, in which no picture can be read alone",
                        hint=f"Unpack it first: tar xf {path}")
    links: dict[str, str] = {}
    try:
        check_input(path, limit=ARCHIVE_LIMIT)
        read = _zip_members if path.suffix.lower() == ".zip" else _tar_members
        yield from read(path, links, notes)
        if links:
            yield from _linked(links, read(path, {}, []))
    except DAMAGE as error:
        hints = remedies([what_else(head_of(path, HEAD))])
        raise DataError(f"{path} is not a readable archive",
                        hint=hints[0] if hints else "Was it copied or downloaded to its end?") from error


def _zip_members(path: Path, links: dict[str, str], notes: list[str]) -> Iterator[tuple[str, Member | str]]:
    with zipfile.ZipFile(path) as archive:
        encoding = _encoding_of_names(archive)
        if encoding not in ("utf-8", _DOS):
            notes.append(f"the names in {path.name} are not UTF-8 and were read as {encoding}")
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            written = _bytes_of_name(entry)
            name = _relative(written.decode(encoding, "replace") if written else entry.filename)
            is_link = stat.S_ISLNK(entry.external_attr >> 16)
            if reason := _reason_against_name(name):
                yield name, reason
            elif entry.flag_bits & _IS_ENCRYPTED:
                yield name, _ENCRYPTED
            elif is_link and entry.file_size < 2**12 and entry.compress_type in PACKED:
                links[name] = posixpath.join(posixpath.dirname(name), archive.read(entry).decode("utf-8", "replace"))
            else:
                yield name, Member(path, entry.filename, entry.file_size, None)


def _bytes_of_name(entry: zipfile.ZipInfo) -> bytes:
    """The name as it stands in the archive, if its encoding is not known and matters; else nothing."""
    if entry.flag_bits & _IS_UTF8 or entry.filename.isascii():
        return b""
    try:
        return entry.filename.encode(_DOS)
    except UnicodeEncodeError:                  # the library knows better than the mark
        return b""


def _encoding_of_names(archive: zipfile.ZipFile) -> str:
    """The encoding of the names without a mark: macOS writes UTF-8, Windows the code page of its country."""
    names = b"\n".join(filter(None, map(_bytes_of_name, itertools.islice(archive.infolist(), _SAMPLE))))
    if is_unicode(names):
        return "utf-8"
    words = dict.fromkeys(word for word in re.split(rb"[\n /.\-]+", names) if not word.isascii())
    return guess_among(b" ".join(words), NAME_PAGES) or _DOS


def _tar_members(path: Path, links: dict[str, str], notes: list[str]) -> Iterator[tuple[str, Member | str]]:
    with open_input(path, limit=ARCHIVE_LIMIT) as file:
        headers, end = TarHeaders(file), -1
        with tarfile.open(fileobj=headers, mode="r:") as archive:      # type: ignore[call-overload]
            for info in archive:
                if info.size < 0 or archive.offset <= end:             # type: ignore[attr-defined]
                    raise tarfile.ReadError("a member that lies before its header")        # it would repeat for ever
                name = _relative(info.name)
                if info.isdir():
                    pass
                elif reason := _reason_against_name(name):
                    yield name, reason
                elif info.isreg():
                    yield name, Member(path, info.name, info.size, info.offset_data)
                elif info.islnk():              # another name of an earlier member
                    links[name] = info.linkname
                elif info.issym():
                    links[name] = posixpath.join(posixpath.dirname(name), info.linkname)
                else:
                    yield name, NOT_REGULAR
                end = archive.offset                                   # type: ignore[attr-defined]
                archive.members.clear()         # type: ignore[attr-defined]   # they are not needed again
                headers.next_member()


def _linked(
    links: dict[str, str], members: Iterable[tuple[str, Member | str]],
) -> Iterator[tuple[str, Member | str]]:
    """Each link with the member to which it leads, perhaps through other links."""
    ends: dict[str, str] = {}
    for name in links:
        end = name
        for _ in range(_LINKS):
            if end in links:
                end = _relative(links[end])
        ends[name] = end
    wanted = set(ends.values())
    found = {name: member for name, member in members if name in wanted}
    for name, end in ends.items():
        yield name, found.get(end, BROKEN_LINK)


def _relative(name: str) -> str:
    """A member's name as a relative POSIX path."""
    return posixpath.normpath(name.replace("\\", "/").lstrip("/"))


def _reason_against_name(path: str) -> str | None:
    """Why a member with this relative path is not read: no file can have it, or not where the archive is unpacked."""
    if path.startswith("../") or path == "..":
        return OUTSIDE
    return NO_NAME if path == "." or "\0" in path or max(map(len, path.split("/"))) > MAX_NAME else None
