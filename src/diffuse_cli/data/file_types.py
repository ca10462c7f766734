"""Which files are pictures: by their suffix, and by the first bytes of their contents, which have the last word.

Standard library only; opens nothing. For files that are something else, it knows the reason that users read, and the
remedy.
"""

import functools
import importlib.util
import os
import re
import struct
from collections.abc import Iterable

from .. import installing

# Suffixes of formats that Pillow decodes without the help of another program.
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jfif", ".jpe", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".webp", ".gif",
    ".bmp", ".dib", ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm",
    ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".vda", ".vst", ".icb", ".qoi", ".pcx", ".ico", ".icns",
    ".dds", ".sgi", ".rgb", ".rgba", ".bw", ".ras"))
# Formats that Pillow can read if a plugin is installed: the plugin's module, Pillow's name of the format, suffixes.
PLUGINS = (("pillow_heif.HeifImagePlugin", "HEIF", (".heic", ".heif", ".hif", ".heics", ".heifs")),
           ("pillow_jxl.JpegXLImagePlugin", "JXL", (".jxl",)))

# ── Reasons and remedies ────────────────────────────────────────────────────────────────────────────────────────────

HEIC, JPEG_XL, DRAWING, RAW, LAYERS = "HEIC", "JPEG XL", "drawing", "raw photograph", "picture with layers"
OTHER_TYPE, ARCHIVE, NOT_DOWNLOADED = "unsupported type", "archive", "not downloaded from iCloud"
_EXPORT = "export it as PNG"
PICTURE_LIKE = (HEIC, JPEG_XL, DRAWING, RAW, LAYERS, OTHER_TYPE)   # reported although nothing claims to be a picture
REMEDIES = {                                    # reason → remedy, the rest of a sentence that begins with the reason
    HEIC: installing.command("pillow-heif"),
    JPEG_XL: installing.command("pillow-jxl-plugin"),
    DRAWING: f"{_EXPORT} at the size that you need",
    RAW: "develop it, and export it as JPEG or PNG",
    LAYERS: _EXPORT,
    OTHER_TYPE: f"convert it: {_EXPORT}",
    NOT_DOWNLOADED: "download it from iCloud",
    "empty file": "copy or download it again",
    "only zeros": "its contents were lost: copy or download it again",
    "truncated": "its end is missing: copy or download it again",
    "Git LFS pointer": "the contents are elsewhere: run `git lfs pull` in the repository",
    "git-annex pointer": "the contents are elsewhere: run `git annex get` in the repository",
    "link as a text": "a link was copied as a text: copy the picture that it names",
    "web page": "the download failed: a page was saved under the name of the file",
    "error message": "the download failed: a message was saved under the name of the file",
    "picture as text": "its bytes are written as a text, which `base64 -d` decodes: save them as a file",
    "saved as text": "a program took its bytes for a text and changed them: copy or download it again",
    "text": "it holds a text, perhaps a message of a failed download: copy or download it again",
    "PDF": "export its pages as PNG",
    "formatted text": "save it as plain text",
    "packed file": "unpack it, or save the spreadsheet or document, if it is one, as CSV or plain text",
    "video": "save single frames as pictures",
    ARCHIVE: "unpack it",
    "unreadable in its archive": "unpack it (in parquet and Arrow files: the row holds no picture)",
    "encrypted": "unpack its archive with the password",
    "leads out of the archive": "pack it again, from the folder in which it lies",
    "gzip data": "unpack it with `gunzip`",
    "bands": "choose three bands, and save them as an RGB picture",
    "numbers": "save it as TIFF with 8 or 16 bits for each of 1, 3 or 4 bands, or as PNG",
}

# Suffixes of pictures that are never opened → reason. Unlike other files of a folder, they are reported.
_UNSUPPORTED = {suffix: reason for reason, suffixes in (
    (HEIC, ".heic .heif .hif .heics .heifs"),
    (JPEG_XL, ".jxl"),
    (DRAWING, ".svg .svgz .eps .ps .ai .cdr .wmf .emf .dxf .dwg .odg .sketch"),
    (LAYERS, ".psd .psb .xcf .kra .ora .clip .sai .sai2 .mdp .afphoto .pdn .procreate .aseprite"),
    (RAW, ".cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .raf .orf .rw2 .rwl .pef .ptx .srw .x3f .3fr .fff .iiq .mrw "
          ".dcr .kdc .erf .mef .mos .gpr"),
    (OTHER_TYPE, ".pam .fits .exr .hdr .xbm .xpm .cur .djvu .bpg .flif .dcm .nii .ktx .ktx2 .basis .pcd .pict "
                 ".wbmp .jxr .wdp .hdp .jbig .jb2 .iff .lbm .dpx"),
) for suffix in suffixes.split()}
# Suffixes of files that are not looked into, because no picture bears them.
_OTHER_SUFFIXES = """
    .txt .caption .captions .tags .tag .json .jsonl .jsonlines .ndjson .csv .tsv .xml .xmp .yaml .yml .toml .ini .cfg
    .conf .md .rst .html .htm .css .js .ts .py .pyc .ipynb .sh .bat .c .h .cpp .rs .go .java .log .lock .db
    .sqlite .sqlite3 .npy .npz .npt .pt .pth .ckpt .safetensors .bin .onnx .pkl .pickle .h5 .hdf5 .mat
    .parquet .arrow .feather .lmdb .mdb .tfrecord .zip .tar .tgz .gz .bz2 .xz .zst .7z .rar .pdf .doc .docx
    .xls .xlsx .ppt .pptx .odt .ods .rtf .tex .mp4 .mov .avi .mkv .webm .m4v .mpg .mpeg .3gp .wmv .flv .mp3
    .wav .flac .ogg .m4a .aac .obj .stl .ply .fbx .glb .gltf .blend .ttf .otf .woff .woff2 .exe .dll .so
    .dylib .apk .iso .dmg .url .lnk .webloc .desktop .torrent .md5 .sha1 .sha256 .sig .asc .pp3 .aae .rej
    .patch .diff
"""
_NEVER_PICTURES = frozenset(_OTHER_SUFFIXES.split())
# ".jpg_large", ".jpg!d", ".png@2x", ".jpeg~": sites and programs append such things to the suffix of a picture.
_DECORATED = re.compile(r"\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|avif)[^a-z0-9.]")

PICTURE, NO_PICTURE, UNKNOWN = "picture", "no picture", "unknown"
HEAD = 512                                      # bytes from the start of a file that tell what it is


# ── By suffix ───────────────────────────────────────────────────────────────────────────────────────────────────────


def plugins() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """The entries of PLUGINS that are installed."""
    return tuple(plugin for plugin in PLUGINS if _is_installed(plugin[0].partition(".")[0]))


@functools.cache                                # one search of the disk, not one for each file of a folder
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def picture_suffixes() -> frozenset[str]:
    """Suffixes of pictures that can be opened, in lower case, including those of installed plugins."""
    return SUFFIXES.union(*(suffixes for _, _, suffixes in plugins()))


def is_picture_name(name: str) -> bool:
    """Whether a name ends as those of pictures that can be opened do."""
    return os.path.splitext(name)[1].lower() in picture_suffixes()


def judge_suffix(suffix: str, readable: frozenset[str]) -> str:
    """PICTURE, UNKNOWN, NO_PICTURE, or the reason why pictures with this suffix are not opened.

    suffix: in lower case, with its dot, or empty. readable: what `picture_suffixes` returns.
    """
    if suffix in readable or _DECORATED.match(suffix):
        return PICTURE
    return NO_PICTURE if suffix in _NEVER_PICTURES else _UNSUPPORTED.get(suffix, UNKNOWN)


# ── By contents ─────────────────────────────────────────────────────────────────────────────────────────────────────

# Pillow's name of a format → how its files begin. The order matters only for speed.
_SIGNATURES = tuple((format, re.compile(pattern, re.DOTALL)) for format, pattern in (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG|.{8}\0\0\0\rIHDR"),     # the second: a file whose first bytes were damaged
    ("WEBP", rb"RIFF.{4}WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("TIFF", rb"II\*\0|MM\0\*|II\+\0\x08\0|MM\0\+\0\x08"),
    ("BMP", rb"BM.{8}.{2}\0\0[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    ("PPM", rb"P[1-6f]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s"),
    ("QOI", rb"qoif.{8}[\x03\x04][\0\x01]"),
    ("JPEG2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51\0"),
    ("ICO", rb"\0\0\x01\0[\x01-\x40]\0.{2}[\0-\xff]\0[\0\x01]\0"),
    ("ICNS", rb"icns"),
    ("DDS", rb"DDS \x7c\0\0\0"),
    ("PCX", rb"\n[\0-\x05][\0\x01][\x01\x02\x04\x08]"),
    ("SGI", rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]"),
    ("SUN", rb"\x59\xa6\x6a\x95"),
))
FORMATS = (*(format for format, _ in _SIGNATURES), "AVIF", "TGA")       # that are opened, besides those of plugins

# How pictures begin that are written as text, by base64.
_BASE64 = rb"data:image/|iVBORw0KGgo|/9j/[A-Za-z0-9+/]{8}|R0lGOD[dl]h|UklGR[A-Za-z0-9+/]{6}XRUJQ"
_AS_TEXT = re.compile(rb"(?<![A-Za-z0-9+/])(?:%b)" % _BASE64)
# A column of pixels, or many numbers of a byte: a table such as that of MNIST.
_PIXELS = re.compile(rb"\bpixel_?\d+[,;\t ]|(?:^|\n)(?:\d{1,3}[,;\t ]){60}")
_XML = rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"         # what may stand before the first tag
_OTHERS = tuple((reason, re.compile(pattern, re.DOTALL | re.IGNORECASE)) for reason, pattern in (
    ("Git LFS pointer", rb"version https://(git-lfs|hawser)"),
    ("git-annex pointer", rb"/annex/objects/"),
    ("link as a text", rb"XSym\n\d{4}\n|!<symlink>|(\.\.?/)+[^\n]{1,255}\n?\Z"),
    ("picture as text", rb"[\s\"'\[]*(?:%b)" % _BASE64),
    (JPEG_XL, rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    (RAW, rb"FUJIFILMCCD-RAW|IIR[OS]\x08|MMOR\0|IIU\0|FOVb|\0MRM|II\*\0.{4}CR\x02|II\x1a\0\0\0HEAPCCDR"),
    (LAYERS, rb"8BPS|gimp xcf"),
    (DRAWING, _XML + rb"(<!DOCTYPE svg|<svg)|%!PS|\xc5\xd0\xd3\xc6|\xd7\xcd\xc6\x9a"),
    ("PDF", rb"%PDF"),
    ("formatted text", rb"\{\\rtf"),
    ("web page", _XML + rb"<(!DOCTYPE|html|head|body|script|meta)|HTTP/\d"),
    ("error message", rb"\s*(<\?xml|<Error|<(title|div|h\d|p|center|pre|b)\b|[{[]\s*[]}\"{]|Not Found|Access Denied|"
                      rb"Forbidden|[45]\d\d\b)"),
    ("saved as text", rb"\xc3\xbf\xc3\x98\xc3\xbf|(\xef\xbf\xbd){2}|\xef\xbf\xbdPNG"),
    ("gzip data", rb"\x1f\x8b"),
    (ARCHIVE, rb"PK\x03\x04|PK\x05\x06|Rar!|7z\xbc\xaf|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar"),
    ("video", rb"\x1aE\xdf\xa3|RIFF.{4}AVI |\0\0\x01\xba|\0\0\x01\xb3|OggS|FLV\x01"),
    ("only zeros", rb"\0{16,}\Z"),
    (OTHER_TYPE, rb"P7\n|PF\s\d|SIMPLE  =|\x76\x2f\x31\x01|#\?R(ADIANCE|GBE)|BPG\xfb|AT&TFORM|/\* XPM|II\xbc\x01"
                 rb"|\xabKTX|.{128}DICM"),
))
_NO_TEXTS = (
    *(item for item in _OTHERS if item[0] in (
        "Git LFS pointer", "PDF", "formatted text", "picture as text", "web page")),
    ("packed file", re.compile(rb"PK\x03\x04|\x1f\x8b\x08|Rar!\x1a|7z\xbc\xaf|\xfd7zXZ\0|BZh[1-9]1AY")),
    ("not text", re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|\xd0\xcf\x11\xe0|SQLite format 3\0")))
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def format_of(head: bytes) -> str | None:
    """Pillow's name of the format of a picture, "PNG" for instance; None if it is none that can be opened.

    head: the first HEAD bytes of the file, or all of it.
    """
    if brands := _brands(head):
        return "AVIF" if brands & _AVIF_BRANDS else _plugin("HEIF") if brands & _HEIF_BRANDS else None
    if format := next((format for format, pattern in _SIGNATURES if pattern.match(head)), None):
        return None if format == "TIFF" and _other(head) == RAW else format
    if _other(head) == JPEG_XL:
        return _plugin("JXL")
    return "TGA" if _is_tga(head) else None


def what_else(head: bytes) -> str:
    """The reason why a file cannot be a picture, by its first HEAD bytes; at worst "not a picture"."""
    if brands := _brands(head):
        return HEIC if brands & _HEIF_BRANDS else RAW if b"crx " in brands else "video"
    if _AS_TEXT.search(head):
        return "picture as text"
    return _other(head) or ("text" if _is_text(head) else "not a picture")


def what_pictures_in_text(head: bytes) -> str:
    """What a table or text holds by its beginning, the rest of a sentence, if it holds pictures; "" otherwise."""
    if _AS_TEXT.search(head):
        return "holds pictures that are written as text (base64)"
    return "holds pixels as numbers" if _PIXELS.search(head) else ""


def _is_text(head: bytes) -> bool:
    """Whether bytes are UTF-8, which may be cut at their end, and a text of several letters."""
    text = head.decode("utf-8", "replace").rstrip("\ufffd")
    return len(text.strip()) > 2 and all(letter.isprintable() or letter in "\t\r\n\f" for letter in text) and (
        "\ufffd" not in text)


def reason_against_text(head: bytes) -> str | None:
    """The reason why a file that could be read as text is none that a person wrote, by its first bytes, or None."""
    return next((reason for reason, pattern in _NO_TEXTS if pattern.match(head)), None)


def remedies(reasons: Iterable[str]) -> list[str]:
    """A line for each reason that has a remedy, in order: 'HEIC: pip install pillow-heif'."""
    return [f"{reason}: {_remedy(reason)}" for reason in dict.fromkeys(reasons) if _remedy(reason)]


def _remedy(reason: str) -> str | None:
    if re.fullmatch(r"\d+ bands", reason):
        return REMEDIES["bands"]
    is_tiff = re.fullmatch(r"unusual TIFF|\d+ planes of 16 bits|signed 8-bit numbers|\d+-bit (real )?numbers", reason)
    return REMEDIES["numbers" if is_tiff else reason] if is_tiff or reason in REMEDIES else None


def _other(head: bytes) -> str | None:
    return next((reason for reason, pattern in _OTHERS if pattern.match(head)), None)


def _plugin(format: str) -> str | None:
    """The format if its plugin is installed."""
    return format if any(name == format for _, name, _ in plugins()) else None


def _brands(head: bytes) -> set[bytes]:
    """The brands in the first box of an ISO media file, the family of AVIF, HEIC and MP4; empty for other files."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[start:start + 4] for start in range(16, end - 3, 4))}


def _is_tga(head: bytes) -> bool:
    """Whether the bytes are a sound header of a TGA file. The format has no signature, so every field is judged."""
    if len(head) < 18:
        return False
    _, has_map, kind, first, colours, map_bits = struct.unpack("<BBBHHB", head[:8])
    width, height, bits, flags = struct.unpack("<HHBB", head[12:18])
    mapped = kind in (1, 9)
    if kind not in (1, 2, 3, 9, 10, 11) or not width or not height or flags & 0xc0 or has_map != mapped:
        return False
    if mapped:
        return bits == 8 and map_bits in (15, 16, 24, 32) and 0 < colours <= 256 and first < 256
    return bits in ((16, 24, 32) if kind in (2, 10) else (8, 16))
