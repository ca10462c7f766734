"""Names of files that other programs leave among pictures: sync tools, network disks, operating systems, albums.

Standard library only. Judges names alone and opens nothing. Names that are also plain words, such as "thumbnails" or
"recycled", are not in the lists, because they may be the names of classes.
"""

import re

# Folders and files of exactly this name, in capital letters or not. Names that begin with a dot need no entry.
_NAMES = frozenset(name.lower() for name in (
    # Windows
    "Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information",
    "MSOCache", "_vti_cnf", "$WinREAgent", "AlbumArtSmall.jpg", "WPSettings.dat", "IndexerVolumeGuid",
    # macOS and its network disks
    "__MACOSX", "Icon\r", "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder", "Desktop DB",
    "Desktop DF", "iPod Photo Cache",
    # Linux, Android, cameras
    "lost+found", "LOST.DIR",
    # network disks: Synology, QNAP, D-Link, NetApp
    "@eaDir", "#recycle", "#snapshot", "@__thumb", "@tmp", "@sharebin", "@Recycle", "@Recently-Snapshot", "@Transcode",
    "Network Recycle Bin", "~snapshot",
    # albums and editors
    "CaptureOne", "Picasa.ini", "ZbThumbnail.info", "pspbrwse.jbf", "Adobe Bridge Cache.bc",
    "Adobe Bridge Cache.bct",
    # sync tools and notebooks
    "_gsdata_", "SyncDebris", "__pycache__"))

# How other such names look → the words under which they are counted.
_PATTERNS = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), label) for pattern, label in (
    (r"\._", "._*"),                                                    # macOS: the second half of a file
    (r":2e", ":2e*"),                                                   # the same on old network disks
    (r"\.trash", ".Trash*"), (r"\.nfs|\.fuse_hidden", ".nfs*"), (r"\.dropbox", ".dropbox*"),
    (r"synofile_thumb|synophoto_", "SYNOPHOTO_*"),
    (r"albumart_\{", "AlbumArt_*"),
    (r"(?-i:RECYCLER|RECYCLED)$", "RECYCLER"),
    (r"found\.\d{3}$", "found.000"), (r"@gmt-", "@GMT-*"),              # rescued by Windows; shadow copies of Samba
    (r"~\$", "~$*"), (r"~syncthing~", "~syncthing~*"),
    (r".*[:.]zone\.identifier$", "Zone.Identifier"), (r"thumbs\.db:", "Thumbs.db"),       # of Windows, seen by others
    (r".*\.(lrdata|lrcat-data|thumb|thm|ithmb)$", "thumbnails"),
    (r".*\.(part|crdownload|download|partial|opdownload|filepart|aria2|aria2__temp|!ut|!qb|!sync|tmp|temp"
     r"|sb-[0-9a-f]{8}-\w{6})$", "partial downloads"),                 # the last: of macOS, while a file is saved
))

_ANY = re.compile("|".join(pattern.pattern for pattern, _ in _PATTERNS), re.IGNORECASE | re.DOTALL)

BACKUPS = "backup copies"                       # the words under which the copies of editors are counted
# photo.png~, photo.png.bak, notes.txt.~1~, #notes.txt#, photo.jpg_original (exiftool)
_BACKUP = re.compile(r"(.+?)(?:~|\.~\d+~|\.(?:bak|backup|bkp|old|orig|original|save?)\d*|_original)|#(.+)#",
                     re.IGNORECASE | re.DOTALL)

# Copies that sync tools make when a file was changed in two places. They are pictures, so they are only named.
_CONFLICT = re.compile(
    r"\(.{0,80}conflicted copy.{0,40}\)|\(.{0,40}'s conflicted|\.sync-conflict-\d{8}-|_conflict-\d{8}-|\[conflict"
    r"|\((case )?conflict\b|\(sfconflict |\bin conflict\b|_conflict\d*\.[^.]+$", re.IGNORECASE)


def litter_label(name: str) -> str | None:
    """The words under which a file or folder of this name is counted as litter; None if it is none.

    name: without its folder.
    """
    if _ANY.match(name):
        return next(label for pattern, label in _PATTERNS if pattern.match(name))
    if name.lower() in _NAMES:
        return name.strip()
    return ".*" if name.startswith(".") else None


def is_conflict_copy(name: str) -> bool:
    """Whether a sync tool named the file as one of two versions that contradict each other."""
    return _CONFLICT.search(name) is not None


def backup_of(name: str) -> str | None:
    """The name of the file of which this one is a copy by an editor, if it is there; None for another name."""
    match = _BACKUP.fullmatch(name)
    return (match[1] or match[2]) if match else None
