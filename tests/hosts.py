"""A rack of hosts on one machine, made of namespaces, and a laptop that reaches them over ssh.

Each has its own network, processes, name, /tmp, home and sshd, and sees the same Python and the
same checkout, as machines do that were set up alike. Nothing of this machine's own network or
mounts is touched. Each host lives as long as its first process, which ends when the pipe to it is
closed, however the tests end; with it the kernel ends all that the host runs.
"""

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from commands import HANGS, Outcome, finish

CHECKOUT = Path(__file__).parents[1]
HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)
TOOLS = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "rsync": "rsync",
}
OWN_KINDS = ("--net", "--uts", "--mount", "--pid")
LAPTOP = "10.77.0.1"
END_SECONDS = 30.0

# Arguments: the host's name, its files, the home folder, then the folders to see there too. Theirs
# are kept in /mnt, since a private /tmp or home would hide what lies below it.
BEGIN = """
set -eu
name=$1 own=$2 home=$3; shift 3
mount -t proc proc /proc
mount -t tmpfs none /mnt
mkdir /mnt/own
mount --bind "$own" /mnt/own
number=0
for path; do
    number=$((number + 1))
    mkdir /mnt/$number
    mount --bind "$path" /mnt/$number
done
mount -t tmpfs none /dev/shm
mount -t tmpfs none /run
mkdir -p /run/sshd
mount --bind /mnt/own/hosts /etc/hosts
mount --bind /mnt/own/resolv.conf /etc/resolv.conf
mount --bind /mnt/own/ssh /etc/ssh
mount --bind /mnt/own/tmp /tmp
mount --bind /mnt/own/home "$home"
number=0
for path; do
    number=$((number + 1))
    mkdir -p "$path"
    mount --bind /mnt/$number "$path"
done
hostname "$name"
ip link set lo up
[ "$name" = laptop ] || "$(command -v sshd)"
cd "$home"
exec 3<&0
cat <&3 >/dev/null &
echo begun
wait
"""


@lru_cache(maxsize=1)
def missing() -> str:
    """What this machine lacks for a rack, for a person to read; empty when it has everything."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "a rack of hosts needs root on Linux"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        packages = sorted({TOOLS[tool] for tool in lacking})
        return f"no {', '.join(lacking)} here: apt-get install {' '.join(packages)}"
    tried = ["unshare", *OWN_KINDS, "--fork", "ip", "link", "add", "rack", "type", "bridge"]
    made = subprocess.run(tried, capture_output=True, text=True, check=False)
    return f"no namespaces here: {made.stderr.strip()}" if made.returncode else ""


class Host:
    """One machine of the rack, or the laptop.

    Attributes:
        folder: its own files, as seen from outside: `home`, `tmp` and `ssh`, which is /etc/ssh.
        environment: of every command that is run there, over ssh too.
    """

    def __init__(self, name: str, address: str, folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self.home = folder / "home"
        self.environment = environment
        for own in ("home/.ssh", "tmp", "ssh"):
            (folder / own).mkdir(parents=True)
        (folder / "resolv.conf").touch()  # a name server would be asked for seconds, in vain
        # Login shells set a path of their own.
        (self.home / ".bashrc").write_text(f"export PATH={environment['PATH']}\n")

    def begin(self) -> None:
        """Start its first process, and sshd; it has no network yet."""
        arguments = [self.name, self.folder, HOME, *_shared_folders()]
        self.first = subprocess.Popen(
            ["unshare", *OWN_KINDS, "--fork", "--kill-child", "sh", "-c", BEGIN, "-"]
            + [str(argument) for argument in arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.first.stdout is not None
        said = self.first.stdout.readline()
        assert said == "begun\n", said
        self.pid = self.first.pid  # of the process that holds its namespaces
        self.processes = str(Path(f"/proc/{self.pid}/ns/pid_for_children").readlink())
        self._resting = processes_in(self.processes)

    def end(self) -> None:
        """End its first process, and so every other."""
        try:
            self.first.communicate(timeout=END_SECONDS)  # closes the pipe that it waits on
        finally:
            self.first.kill()
            self.first.wait()

    def start(self, *command: object) -> subprocess.Popen[str]:
        """Start a command in the host's home, in a process group of its own."""
        its = f"/proc/{self.pid}/ns"
        kinds = [f"--net={its}/net", f"--uts={its}/uts", f"--mount={its}/mnt"]
        return subprocess.Popen(
            ["nsenter", *kinds, f"--pid={its}/pid_for_children", f"--wdns={HOME}"]
            + [str(word) for word in command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: object, timeout: float = HANGS) -> Outcome:
        """A command there from start to end."""
        return finish(self.start(*command), timeout)

    def network(self, *command: str) -> None:
        """A command of this machine in the host's network."""
        entered = ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]
        subprocess.run(entered, check=True, stdout=subprocess.DEVNULL)

    def working(self) -> dict[int, str]:
        """Number and command line of what runs there, save what runs when nobody works on it."""
        there = processes_in(self.processes)
        return {pid: command for pid, command in there.items() if pid not in self._resting}

    def left_after(self, seconds: float) -> dict[int, str]:
        """What still runs there after so long; empty as soon as nothing does."""
        until = time.monotonic() + seconds
        while (left := self.working()) and time.monotonic() < until:
            time.sleep(0.2)
        return left


@dataclass(frozen=True)
class Rack:
    """Hosts, the laptop of the person who uses them, and the key to them as the laptop names it."""

    laptop: Host
    hosts: list[Host]
    key: Path


@contextmanager
def rack(folder: Path, count: int, variables: Mapping[str, str] | None = None) -> Iterator[Rack]:
    """Make hosts that end with the block.

    Args:
        folder: where their files come to lie, for a look at them afterwards.
        variables: of the environment everywhere.
    """
    environment = {
        "HOME": str(HOME),
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin",
        "PYTHONPATH": str(CHECKOUT),
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        **(variables or {}),
    }
    names = {"laptop": LAPTOP} | {f"rack-{n}": f"10.77.0.{10 + n}" for n in range(1, count + 1)}
    every = [Host(name, names[name], folder / name, environment) for name in names]
    key = _make_key(every[0].home / ".ssh/rack")
    for host in every:
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
        (host.folder / "hosts").write_text("\n".join(lines) + "\n")
        _write_ssh(host, key)
    with ExitStack() as stack:
        for host in every:
            host.begin()
            stack.callback(host.end)
        _connect(every[0], every[1:])
        yield Rack(every[0], every[1:], HOME / ".ssh/rack")


def _make_key(path: Path) -> str:
    """A key pair; returns the public half."""
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(made, check=True)
    return path.with_suffix(".pub").read_text()


def _write_ssh(host: Host, key: str) -> None:
    """A key of its own, and who may come in: the owner of `key` and nobody else."""
    _make_key(host.folder / "ssh/host_key")
    (host.home / ".ssh/authorized_keys").write_text(key)
    variables = " ".join(f'"{name}={value}"' for name, value in host.environment.items())
    (host.folder / "ssh/sshd_config").write_text(
        "HostKey /etc/ssh/host_key\n"
        "PermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "UseDNS no\n"
        f"SetEnv {variables}\n"
    )


def _connect(laptop: Host, hosts: list[Host]) -> None:
    """Plug the hosts into a switch of the laptop's."""
    laptop.network("ip", "link", "add", "rack", "type", "bridge")
    laptop.network("ip", "address", "add", f"{laptop.address}/24", "dev", "rack")
    laptop.network("ip", "link", "set", "rack", "up")
    for host in hosts:
        ends = (host.name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        laptop.network("ip", "link", "add", *ends)
        laptop.network("ip", "link", "set", host.name, "master", "rack", "up")
        host.network("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.network("ip", "link", "set", "eth0", "up")
        # Without one Ray takes 127.0.0.1 for the node's address.
        host.network("ip", "route", "add", "default", "via", laptop.address)


def processes_in(namespace: str) -> dict[int, str]:
    """Number and command line of the living processes in a PID namespace."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ends meanwhile
            if str((path / "ns/pid").readlink()) == namespace:
                name, _, fields = (path / "stat").read_text().rpartition(")")
                words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if fields.split()[0] != "Z":
                    # A process that is about to run another program has no words for a moment.
                    found[int(path.name)] = " ".join(words).strip() or name.partition("(")[2]
    return found


def _shared_folders() -> list[Path]:
    """Folders below /tmp or home that Python and the checkout are in, by all their names."""
    python = Path(sys.prefix, "bin/python")
    links = [python]
    while python.is_symlink():
        python = python.parent / python.readlink()
        links.append(python)
    found = {Path(sys.prefix), Path(sys.base_prefix), CHECKOUT, *(one.parents[1] for one in links)}
    found |= {one.resolve() for one in found}
    hidden = (HOME, Path("/tmp"))
    below = [one for one in found if any(one.is_relative_to(folder) for folder in hidden)]
    return sorted(below)  # what lies in another comes after it
