"""Text that is safe to print: text from elsewhere in one harmless line, and durations."""

import unicodedata

_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))     # Unicode categories that can deceive the eye


def clean(text: str, *, limit: int = 200) -> str:
    """Text from elsewhere as at most `limit` characters of one line, with invisible ones escaped as in `\\x1b`."""
    shown = visible(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def visible(text: str, *, keep: str = "") -> str:
    """Replace invisible characters, except those in `keep`, by escapes such as `\\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character) if unicodedata.category(character) in _INVISIBLE and character not in keep
                   else character for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:                                       # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def duration(seconds: float) -> str:
    """A duration as H:MM:SS; -:--:-- where it is negative, endless or unknown."""
    if not 0 <= seconds < 1e9:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
