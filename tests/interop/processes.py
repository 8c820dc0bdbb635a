"""Processes of mail servers: started on loopback, waited for by connecting, ended with their children.

Rules of this room:

* Only what was started here is ever ended: a process and those that descend from it, by number.
* Without need nothing runs as root: a server that does without gets the user `nobody`.
* A server is up when it accepts a connection, not after some time.
"""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .packages import NotToBeHad

PATIENCE = 20.0
"""Seconds in which a server must be up, or gone."""
_BLINK = 0.02

AS_ROOT = os.geteuid() == 0
UID, GID = (65534, 65534) if AS_ROOT else (os.geteuid(), os.getegid())
"""As whom servers run that need no privileges."""


def user() -> str:
    """That user's name."""
    return pwd.getpwuid(UID).pw_name


def group() -> str:
    """That group's name."""
    return grp.getgrgid(GID).gr_name


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def give_away(folder: Path) -> None:
    """Let the user without privileges have a folder and all that is in it."""
    if AS_ROOT:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, UID, GID, follow_symlinks=False)


def need_root(why: str) -> None:
    """Leave a server out if we are not root."""
    if not AS_ROOT:
        raise NotToBeHad(f"needs root: {why}")


@functools.cache
def need_namespaces() -> None:
    """Leave a server out if no mount namespace is to be had, in which its files seem to be in /usr."""
    need_root("its files must seem to be in /usr, which takes a mount namespace")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        raise NotToBeHad("it is not installed, and this machine allows no mount namespace")


def as_if_installed(root: Path, *, before: str = "true", drop: bool = False) -> list[str]:
    """The command in front of another that lets it see unpacked files in /usr; nobody else sees them.

    Args:
        root: where they were unpacked.
        before: more for the shell to do in that namespace.
        drop: then become the user without privileges.
    """
    need_namespaces()
    who = f"setpriv --reuid={UID} --regid={GID} --clear-groups" if drop else ""
    script = (
        "mount --make-rprivate /\n"
        'mount -t overlay overlay -o lowerdir="$0/usr:/usr" /usr\n'
        f'{before}\nexec {who} "$@"'
    )
    return ["unshare", "--mount", "sh", "-ec", script, str(root)]


class Process:
    """One server's process and its descendants.

    Args:
        argv: the command; it must stay in the foreground.
        folder: where it runs; its output goes to `output.log` there.
        port: it is up when it accepts connections here.
        environment: on top of ours.
        as_root: keep the privileges we have.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        folder: Path,
        port: int,
        *,
        environment: Mapping[str, str] | None = None,
        as_root: bool = False,
    ) -> None:
        self._log = folder / "output.log"
        who = {} if as_root or not AS_ROOT else {"user": UID, "group": GID, "extra_groups": []}
        try:
            self._started = self._start(argv, folder, environment or {}, who)
        except OSError as error:
            raise NotToBeHad(f"{argv[0]} cannot be started: {error.strerror}") from error
        try:
            self._wait_for(port)
        except BaseException:
            self.kill()
            raise

    def _start(
        self,
        argv: Sequence[str | os.PathLike[str]],
        folder: Path,
        environment: Mapping[str, str],
        who: Mapping[str, object],
    ) -> subprocess.Popen[bytes]:
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                [os.fspath(part) for part in argv],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
                **who,  # type: ignore[call-overload]
            )

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while not listens(port):
            if self._started.poll() is not None or time.monotonic() > deadline:
                raise NotToBeHad(f"it did not start: {self.said()}")
            time.sleep(_BLINK)

    def said(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace").strip()[-500:].replace("\n", " / ")

    def kill(self) -> None:
        """SIGKILL to all of it, as when a machine loses its power."""
        everybody: set[int] = set()
        while more := {self._started.pid, *descendants(self._started.pid)} - everybody:
            for number in more:  # stopped first, so that nobody starts another one meanwhile
                _signal(number, signal.SIGSTOP)
            everybody |= more
        for number in everybody:
            _signal(number, signal.SIGKILL)
        self._started.wait()

    def stop(self) -> None:
        """SIGTERM to the first one, and SIGKILL to what is left after a while."""
        everybody = [self._started.pid, *descendants(self._started.pid)]
        self._started.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._started.wait(PATIENCE / 4)
        if self._started.poll() is None:
            self.kill()
        deadline = time.monotonic() + PATIENCE / 4
        while left := [number for number in everybody if _lives(number)]:
            if time.monotonic() > deadline:
                for number in left:
                    _signal(number, signal.SIGKILL)
                return
            time.sleep(_BLINK)


def listens(port: int) -> bool:
    """True if somebody accepts connections on this port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _signal(number: int, which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, which)


def _lives(number: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2][:1] not in ("Z", "X", "")
    return False


def descendants(number: int) -> Iterator[int]:
    """The children of a process, their children, and so on."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    waiting = [number]
    while waiting:
        children = parents.get(waiting.pop(), [])
        yield from children
        waiting += children
