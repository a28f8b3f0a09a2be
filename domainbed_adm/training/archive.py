"""What a stranger's ``model.pkl`` may not do before it is loaded: take memory that its own size does not bound."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

from domainbed_adm.errors import UserError

#: What the pickles of state dicts name, DomainBed's and ours. ``torch.load`` allows more with ``weights_only``, some of
#: which makes as many bytes as a number in the file says: bytearray, torch.Tensor, UntypedStorage.
_STORAGES = ("Float", "Double", "Half", "BFloat16", "ComplexFloat", "ComplexDouble", "Bool", "Byte", "Char", "Short")
_NAMED = {f"torch {kind}Storage" for kind in (*_STORAGES, "Int", "Long")} | {
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
}
_MAGIC = b"PK\x03\x04"


def check_archive(path: Path) -> None:
    """Refuse a file that is not one that ``torch.save`` writes of state dicts and plain values.

    It must be a zip from its first byte on, as ``torch.load`` reads others by older rules; its members must not be
    compressed nor lie over one another; and its pickle may name only tensors, their storages and dicts.

    Raises:
        UserError: it is not.
        OSError: it cannot be read.
        Exception: of any type, where its bytes make ``zipfile`` or ``pickletools`` raise.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        file.seek(0)
        if file.read(len(_MAGIC)) != _MAGIC or min(member.header_offset for member in members) != 0:
            raise UserError("it does not begin as a zip")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise UserError("it is compressed")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise UserError("its members are larger than it is")
        for member in members:
            if member.filename.lower().endswith(".pkl"):
                opcodes = pickletools.genops(archive.read(member))
                named = {str(arg) for opcode, arg, _ in opcodes if opcode.name == "GLOBAL"}
                if named - _NAMED:
                    raise UserError(f"it names {', '.join(sorted(named - _NAMED))}")
