"""What a file is, by its first bytes (no section of the paper)."""

# First bytes of what people have in their folders, for a message that helps.
_KINDS = {
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"%PDF": "PDF",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "a Photoshop file",
}
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"avif": "AVIF"}


def format_of(data: bytes) -> str | None:
    """ "PNG", "JPEG" or "WEBP", else None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def likely_kind(data: bytes) -> str | None:
    """What else a file may be, in words, or None."""
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "a film or an unusual picture")
    if data[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)


def canvas(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a WebP file, (0, 0) if it is cut short; None for any other file."""
    if format_of(data) != "WEBP":
        return None
    if len(data) < 30:
        return 0, 0
    if data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif data[12:16] == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width, height
