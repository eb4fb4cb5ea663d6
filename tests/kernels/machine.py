"""
One virtual machine: boots a kernel in QEMU, runs a script as root in it, gives back what it printed.

In: a kernel's folder, the folders that the guest shall see, a script. Out: `Outcome`. It knows nothing of tests.
The processor is emulated: a `/dev/kvm` that is there may still not work, and other architectures have none.
"""

import gzip
import lzma
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MODULES = ("virtio_pci", "virtio_console", "virtiofs", "overlay")
MEMORY_MIB = 2048
_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""What we start does not outlive us."""

# The processor that is quickest to emulate among those that run today's programs; without its mitigations, which
# emulation does not need.
MACHINES = {
    "x86_64": ["-M", "pc", "-cpu", "Nehalem"],
    "aarch64": ["-M", "virt", "-cpu", "cortex-a57"],
}
CONSOLES = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}
# KPTI (aarch64) makes an emulated system call ten times as long; `mitigations=off` leaves it on.
KERNEL_ARGUMENTS = {"x86_64": "mitigations=off", "aarch64": "mitigations=off kpti=off"}
# Its processors take turns in one thread of ours. With a thread for each, one goes on with code that another has
# patched (the jumps before a tracepoint, when somebody attaches): invalid opcodes, and hangs in
# `syscall_exit_to_user_mode` of every second 5.10 machine.
_EMULATION = "tcg,thread=single"
# One that hangs ends, and says where: a processor that does nothing else for a minute (twice the threshold).
_ENDS_IF_IT_HANGS = "softlockup_panic=1 watchdog_thresh=30"


class BootError(Exception):
    """The guest did not come so far as to run its script, or gave no status; the text is its console's end."""


@dataclass(frozen=True)
class Guest:
    """What a machine consists of."""

    architecture: str
    """As `uname -m` says it: x86_64 or aarch64."""
    kernel: Path
    """Folder with a `vmlinuz*` and the modules that the guest needs, anywhere below."""
    root: Path
    """Folder that becomes the guest's root; it is not changed."""
    busybox: Path
    """A static busybox of the guest's architecture."""
    shares: tuple[tuple[Path, Path], ...] = ()
    """Further folders, and where the guest sees them, read-only."""


@dataclass(frozen=True)
class Outcome:
    """What became of the script."""

    status: int
    output: str
    """What it printed."""
    report: bytes
    """What the script left in /run/report; empty if nothing."""
    seconds: float


def run(guest: Guest, script: str, deadline_s: float) -> Outcome:
    """
    Boot the guest and run a bash script in it.

    Raises:
        BootError: no status came, or none before the deadline.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="otel-sysexit-guest-") as name:
        folder = Path(name)
        (folder / "initrd").write_bytes(initramfs(guest, script))
        _boot(guest, folder, deadline_s)
        words = (folder / "status").read_text().split()
        console = (folder / "console").read_text(errors="replace")
        output = (folder / "output").read_text(errors="replace")
        if len(words) != 2:
            raise BootError(f"{output[-3000:]}\n{console[-2000:]}".strip())
        report = (folder / "report").read_bytes()
        return Outcome(int(words[1]), output, report, time.monotonic() - began)


def _boot(guest: Guest, folder: Path, deadline_s: float) -> None:
    (vmlinuz,) = guest.kernel.rglob("vmlinuz*")
    arguments = (
        f"console={CONSOLES[guest.architecture]} loglevel=4 panic=-1 {_ENDS_IF_IT_HANGS}"
        f" {KERNEL_ARGUMENTS[guest.architecture]}"
    )
    command = [
        *_WITH_US,
        *(f"qemu-system-{guest.architecture}", *MACHINES[guest.architecture]),
        *("-accel", _EMULATION, "-smp", "2", "-m", str(MEMORY_MIB)),
        *("-object", f"memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on"),
        *("-machine", "memory-backend=memory", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-kernel", vmlinuz, "-initrd", folder / "initrd", "-append", arguments),
        *("-serial", f"file:{folder}/console", "-device", "virtio-serial-pci"),
    ]
    for port in ("output", "report", "status"):
        (folder / port).write_bytes(b"")
        command += ["-chardev", f"file,id={port},path={folder / port}"]
        command += ["-device", f"virtserialport,chardev={port},name={port}"]
    with ExitStack() as servers:
        further = [(f"share{index}", shared) for index, (shared, _) in enumerate(guest.shares)]
        for tag, shared in [("root", guest.root), *further]:
            socket = servers.enter_context(_served(shared, folder / tag))
            command += ["-chardev", f"socket,id={tag},path={socket}"]
            command += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
        with (folder / "qemu").open("wb") as log:
            try:
                subprocess.run(
                    command, check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=deadline_s
                )
            except subprocess.TimeoutExpired:
                with (folder / "console").open("a") as console:
                    console.write(f"\nnot at its end after {deadline_s:.0f} s\n")
    if not (folder / "console").exists():
        raise BootError((folder / "qemu").read_text(errors="replace"))


@contextmanager
def _served(shared: Path, place: Path) -> Iterator[Path]:
    """Serve a folder by virtiofsd, through a mount that is really read-only; give the socket's path."""
    socket, mount = place.with_suffix(".socket"), place.with_suffix(".mount")
    mount.mkdir(exist_ok=True)
    socket.unlink(missing_ok=True)
    # A mount namespace of its own, so that nothing stays mounted whatever happens.
    script = 'mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" && shift 2 && exec "$@"'
    command = [*_WITH_US, "unshare", "-m", "sh", "-c", script, "sh", shared, mount]
    serve = [_virtiofsd(), f"--socket-path={socket}", "-f", "-o", f"source={mount}"]
    options = ["-o", "cache=always", "-o", "log_level=err"]
    with place.with_suffix(".log").open("wb") as log:
        server = subprocess.Popen([*command, *serve, *options], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 20
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > end:
                raise BootError(place.with_suffix(".log").read_text(errors="replace"))
            time.sleep(0.02)
        yield socket
    finally:
        server.kill()
        server.wait()


def _virtiofsd() -> Path:
    """Return the program that Debian's releases have at different places."""
    places = [Path("/usr/libexec/virtiofsd"), Path("/usr/lib/qemu/virtiofsd")]
    found = [place for place in places if place.exists()]
    if not found:
        raise BootError(
            "virtiofsd is missing: install qemu-system-common, or virtiofsd where that is a package"
        )
    return found[0]


def initramfs(guest: Guest, script: str) -> bytes:
    """Return the guest's first file system: busybox, init.sh, the modules, the script."""
    modules = _modules(guest.kernel)
    shares = "".join(f"share{index} {place}\n" for index, (_, place) in enumerate(guest.shares))
    files = {
        "init": (0o100755, (HERE / "init.sh").read_bytes()),
        "bin/busybox": (0o100755, guest.busybox.read_bytes()),
        "command": (0o100644, script.encode()),
        "shares": (0o100644, shares.encode()),
        "modules/order": (0o100644, "\n".join(f"{name}.ko" for name in modules).encode()),
        **{f"modules/{name}.ko": (0o100644, content) for name, content in modules.items()},
    }
    entries = [(folder, 0o40755, b"", (0, 0)) for folder in ("bin", "dev", "modules")]
    entries.append(("dev/console", 0o20600, b"", (5, 1)))
    entries += [(name, mode, content, (0, 0)) for name, (mode, content) in files.items()]
    return cpio(entries)


def cpio(entries: list[tuple[str, int, bytes, tuple[int, int]]]) -> bytes:
    """
    Return an archive of (name, mode, content, device) as the kernel unpacks it at boot.

    The format is "newc" (Documentation/driver-api/early-userspace/buffer-format.rst); neither the standard library
    nor Debian's base system writes it.
    """
    archive = bytearray()
    for inode, (name, mode, content, device) in enumerate(
        [*entries, ("TRAILER!!!", 0, b"", (0, 0))], start=1
    ):
        encoded = name.encode() + b"\0"
        numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers)
        for part in (header + encoded, content):
            archive += part + b"\0" * (-len(part) % 4)
    return bytes(archive)


def _modules(kernel: Path) -> dict[str, bytes]:
    """Return the modules that the guest needs, by name, each after those it depends on; one that is absent is built in."""
    files = {
        path.name.partition(".")[0].replace("-", "_"): path
        for path in kernel.rglob("*")
        if ".ko" in path.suffixes
    }
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in found or name not in files:
            return
        content = _unpacked(files[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in depends[1].decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        found[name] = content

    for name in MODULES:
        add(name)
    return found


def _unpacked(module: Path) -> bytes:
    content = module.read_bytes()
    if module.suffix == ".xz":
        return lzma.decompress(content)
    return gzip.decompress(content) if module.suffix == ".gz" else content
