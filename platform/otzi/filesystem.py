"""What file system a folder lies on, and whether a database may live there."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["file_system", "is_network"]

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs",
    "weka", "wekafs",
}  # fmt: skip
_LOCAL_FUSE = {
    "fuse.bindfs", "fuse.encfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.mergerfs",
    "fuse.ntfs-3g", "fuse.zfs",
}  # fmt: skip


def file_system(path: Path, mounts: Path | None = None) -> str:
    """Give the type of the file system that a path lies or will lie on, as ``ext4`` or ``nfs4``.

    Read from the table of mounts, which unlike statfs tells one FUSE file system from another.
    Empty where there is no such table (it is Linux's own).
    """
    try:
        lines = (mounts or _MOUNTS).read_text().splitlines()
    except OSError:
        return ""
    resolved, found, longest = path.resolve(), "", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split()[4]))
        # Of two mounts at the same place the later one hides the other.
        if resolved.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = after.split()[0], len(point.parts)
    return found


def is_network(kind: str) -> bool:
    """Tell whether files of such a system may be locked and changed from elsewhere.

    Of FUSE all are taken for such but those that are known to lie over a local disk.
    """
    return kind in _NETWORK or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
