"""Reading Qt's compiled resource archives (.rcc), as gcompris ships its pictures and sounds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from .errors import MaterialError

_DIRECTORY = 2
_ZLIB = 1
_ZSTD = 4


def read_rcc(path: Path) -> dict[str, bytes]:
    """Path inside the archive -> contents.

    The file is a header, a tree of nodes (22 bytes each from version 2 on, 14 before), UTF-16 names, and length-prefixed data,
    zlib-packed behind another length where the node's flag says so. All numbers are big-endian.

    Raises:
        MaterialError: the file is missing or not such an archive.
    """
    if not path.is_file():
        raise MaterialError(f"{path} is missing; install it with: apt-get install gcompris-qt-data")
    blob = path.read_bytes()
    try:
        magic, version, tree, data, names = struct.unpack_from(">4sIIII", blob)
        if magic != b"qres":
            raise MaterialError(f"{path} is not a Qt resource archive")
        return dict(_walk(blob, tree, data, names, 22 if version >= 2 else 14, 0, ""))
    except (struct.error, zlib.error, UnicodeDecodeError, RecursionError) as error:
        raise MaterialError(
            f"{path} cannot be read ({error}); install gcompris-qt-data again, or a version of Debian 12"
        ) from error


def _walk(
    blob: bytes, tree: int, data: int, names: int, node_size: int, node: int, prefix: str
) -> Iterator[tuple[str, bytes]]:
    at = tree + node * node_size
    name_at, flags = struct.unpack_from(">IH", blob, at)
    path = f"{prefix}/{_name(blob, names + name_at)}" if node else ""
    if flags & _DIRECTORY:
        count, first = struct.unpack_from(">II", blob, at + 6)
        for child in range(first, first + count):
            yield from _walk(blob, tree, data, names, node_size, child, path)
        return
    (data_at,) = struct.unpack_from(">I", blob, at + 10)
    (length,) = struct.unpack_from(">I", blob, data + data_at)
    content = _part(blob, data + data_at + 4, length)
    if flags & _ZSTD:
        raise struct.error(f"{path} is packed with zstd, which this program cannot read")
    yield path, zlib.decompress(content[4:]) if flags & _ZLIB else content


def _name(blob: bytes, at: int) -> str:
    (length,) = struct.unpack_from(">H", blob, at)
    return _part(blob, at + 6, 2 * length).decode("utf-16-be")


def _part(blob: bytes, at: int, length: int) -> bytes:
    if at + length > len(blob):
        raise struct.error(f"it ends at {len(blob)} bytes, before {at + length}")
    return blob[at : at + length]
