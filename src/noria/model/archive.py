"""The container of a bundle: a zip file whose bytes depend on its content only.

Members are sorted, stored without compression and dated 1980, so equal content gives equal bytes on every machine, and a size in
the directory is the size in the file: nothing can be unpacked into more than was received. ``manifest.json`` has the sha256 of
every other member. Reading refuses whatever our own writer would not have written.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import msgspec

from noria.core import Corrupt, Refused, canonical, digest_bytes

SCHEMA = 1
SIZE_LIMIT = 256 * 2**20
PARTS = 8
_KINDS = ("json", "trees", "skops")
MEMBERS = frozenset(
    {"spec.json", "encoder.json", "golden.json", "weights.json"}
    | {f"{name}.{kind}" for name in ("predictor", *(f"part{place}" for place in range(PARTS))) for kind in _KINDS}
)
MANIFEST = "manifest.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Manifest(msgspec.Struct, frozen=True):
    """The version of the container and the sha256 of each member."""

    schema: int
    members: dict[str, str]


def write(members: Mapping[str, bytes]) -> bytes:
    """The archive of these members.

    >>> write({"spec.json": b"1"}) == write({"spec.json": b"1"})
    True
    """
    manifest = Manifest(SCHEMA, {name: digest_bytes(data) for name, data in sorted(members.items())})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted({**members, MANIFEST: canonical(manifest)}.items()):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system = 3  # the same on every platform
            archive.writestr(member, data)
    return out.getvalue()


def read(data: bytes, *, where: str = "the bundle") -> dict[str, bytes]:
    """The members, each checked against the manifest. Raises ``Corrupt`` for damage, ``Refused`` for what does not belong there."""
    if len(data) > SIZE_LIMIT:
        raise Refused(f"{where} has {len(data):,} bytes; {SIZE_LIMIT:,} are allowed")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_directory(archive.infolist(), where)
            if archive.comment or min(member.header_offset for member in archive.infolist()) != 0:
                raise Corrupt(f"{where} has bytes around the archive that do not belong to it")
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError, ValueError, OSError) as error:
        raise Corrupt(
            f"{where} is not a readable archive: {error}", hint="take it from the artifacts again, or train again"
        ) from None
    manifest = _manifest(members.pop(MANIFEST, None), where)
    if set(manifest.members) != set(members):
        raise Corrupt(f"{where} does not hold the members that its manifest lists")
    for name, content in members.items():
        if digest_bytes(content) != manifest.members[name]:
            raise Corrupt(f"{name} in {where} is not what was written", hint="take it from the artifacts again, or train again")
    return members


def _check_directory(members: list[zipfile.ZipInfo], where: str) -> None:
    names = [member.filename for member in members]
    strange = sorted(set(names) - MEMBERS - {MANIFEST})
    if not names:
        raise Corrupt(f"{where} is empty")
    if strange or len(names) != len(set(names)):
        raise Refused(f"{where} holds members that a bundle does not have: {', '.join(strange) or 'the same name twice'}")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size or member.flag_bits & 1:
            raise Refused(f"{member.filename} in {where} is compressed or encrypted, and a bundle's members never are")


def _manifest(data: bytes | None, where: str) -> Manifest:
    if data is None:
        raise Corrupt(f"{where} has no manifest")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"the manifest of {where} cannot be read: {error}") from None
    if manifest.schema != SCHEMA:
        raise Refused(
            f"{where} has version {manifest.schema} of the format, and this Noria reads version {SCHEMA}",
            hint="use the Noria that wrote it, or train again",
        )
    return manifest
