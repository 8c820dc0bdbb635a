"""System users that a server looks up by name and this machine does not have, through libnss-wrapper."""

from __future__ import annotations

from pathlib import Path

from interop.packages import unpacked
from interop.processes import GID, UID


def with_accounts(folder: Path, *names: str, uid: int = UID, gid: int = GID) -> dict[str, str]:
    """The environment in which these names are users, the first with this number, the next with the next."""
    users = [line for line in Path("/etc/passwd").read_text().splitlines() if line.split(":")[0] not in names]
    groups = [line for line in Path("/etc/group").read_text().splitlines() if line.split(":")[0] not in names]
    for more, name in enumerate(names):
        users.append(f"{name}:x:{uid + more}:{gid + more}::{folder}:/bin/false")
        groups.append(f"{name}:x:{gid + more}:")
    (folder / "passwd").write_text("\n".join(users) + "\n")
    (folder / "group").write_text("\n".join(groups) + "\n")
    library = next(unpacked("libnss-wrapper").root.glob("usr/lib/**/libnss_wrapper.so"))
    return {
        "LD_PRELOAD": str(library),
        "NSS_WRAPPER_PASSWD": str(folder / "passwd"),
        "NSS_WRAPPER_GROUP": str(folder / "group"),
    }
