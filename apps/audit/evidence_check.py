"""Checks an evidence pack: every file that its manifest names is there, whole and as it was written, and no other.

    python verify.py evidence.zip

Python's standard library is all that this needs; it lies in every pack, so that it can be used without the product. It
ends with 0 and what was checked, or with 1 and a line for each difference.
"""

import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

MANIFEST = "manifest.json"
PIECE_BYTES = 1 << 20
MOST_MANIFEST_BYTES = 16 << 20


def differences(path: str) -> Iterator[str]:
    """Give a sentence for everything in the pack at ``path`` that is not as its manifest says."""
    try:
        with zipfile.ZipFile(path) as pack:
            yield from _differences(pack)
    except (zipfile.BadZipFile, EOFError) as error:
        yield f"The file is not a whole ZIP archive: {error}."
    except OSError as error:
        yield f"The file cannot be read: {error.strerror or error}."


def sha256_of(path: str) -> str:
    """Return the digest of the whole file, which the record of the pack's making has as well."""
    with open(path, "rb") as file:  # noqa: PTH123  # as plain as it can be
        return _digest(file)[1]


def _differences(pack: zipfile.ZipFile) -> Iterator[str]:
    names = pack.namelist()
    yield from (f"{name} is there more than once." for name in sorted(set(names)) if names.count(name) > 1)
    try:
        listed = _listed(pack)
    except (KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error, EOFError, RecursionError):
        yield f"{MANIFEST} is missing or cannot be read: nothing can be checked."
        return
    for name, said in listed.items():
        if name not in names:
            yield f"{name} is missing."
        else:
            yield from _differences_of(pack, name, said)
    yield from (f"{name} is not in the manifest." for name in sorted(set(names) - listed.keys() - {MANIFEST}))


def _listed(pack: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    if pack.getinfo(MANIFEST).file_size > MOST_MANIFEST_BYTES:
        raise ValueError(MANIFEST)
    manifest = json.loads(pack.read(MANIFEST))
    return {str(one["name"]): {key: one[key] for key in ("bytes", "sha256", "lines")} for one in manifest["files"]}


def _differences_of(pack: zipfile.ZipFile, name: str, said: dict[str, Any]) -> Iterator[str]:
    try:
        with pack.open(name) as file:
            size, digest, lines = _digest(file)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        yield f"{name} cannot be read: {error}."
        return
    if digest != said["sha256"]:
        yield f"{name} was changed: its SHA-256 is {digest}, the manifest says {said['sha256']}."
    if size != said["bytes"]:
        yield f"{name} has {size} bytes, the manifest says {said['bytes']}."
    if lines != said["lines"]:
        yield f"{name} has {lines} lines, the manifest says {said['lines']}."


def _digest(file: IO[bytes]) -> tuple[int, str, int]:
    size, lines, digest = 0, 0, hashlib.sha256()
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
        size += len(piece)
        lines += piece.count(b"\n")
    return size, digest.hexdigest(), lines


def report(path: str) -> tuple[bool, list[str]]:
    """Return whether the pack is as it was made, and what to say of it."""
    found = list(differences(path))
    if found:
        return False, [*found, f"{len(found)} difference{'s' if len(found) > 1 else ''}."]
    return True, [
        "Every file is as the manifest says.",
        f"SHA-256 of the whole pack: {sha256_of(path)}. Compare it with the record of its making.",
    ]


def main(arguments: list[str]) -> int:
    """Check the pack that the command line names."""
    if len(arguments) != 1:
        sys.stderr.write("Name one evidence pack: python verify.py evidence.zip\n")
        return 2
    is_whole, lines = report(arguments[0])
    (sys.stdout if is_whole else sys.stderr).write("\n".join(lines) + "\n")
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
