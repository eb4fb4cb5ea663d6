"""Names of constants: what the standard library and the kernel's headers say of them."""

import os
import platform
import re
import shutil
import subprocess

import pytest

from otel_sysexit import constants
from otel_sysexit.notation import SORTS
from otel_sysexit.syscalls import Abi

GROUPS = sorted({*constants._STANDARD, *constants._own()})
NATIVE = {"x86_64": Abi.X86_64, "aarch64": Abi.AARCH64}.get(platform.machine())
# Headers that define what the tables have; those of the C library would define some names otherwise.
HEADERS = re.findall(
    r"\S+",
    """
    asm/fcntl.h linux/fcntl.h linux/stat.h linux/fs.h linux/falloc.h linux/close_range.h linux/mman.h linux/mempolicy.h
    linux/memfd.h asm/signal.h linux/sched.h linux/wait.h linux/pidfd.h linux/futex.h linux/time.h linux/timerfd.h
    linux/eventfd.h linux/signalfd.h linux/inotify.h linux/eventpoll.h linux/random.h linux/mount.h linux/netlink.h
    asm/socket.h linux/in.h linux/in6.h linux/tcp.h linux/udp.h asm/ioctls.h asm/termbits.h linux/sockios.h linux/prctl.h
    linux/capability.h linux/seccomp.h linux/ptrace.h asm/ptrace.h linux/ioprio.h linux/kcmp.h linux/bpf.h
    linux/perf_event.h linux/membarrier.h linux/rseq.h linux/io_uring.h linux/userfaultfd.h linux/module.h linux/ipc.h
    linux/sem.h linux/shm.h linux/msg.h linux/net.h linux/resource.h linux/xattr.h asm/prctl.h linux/splice.h
    """,
)


def own_constants(abi: Abi) -> dict[str, int]:
    """Return everything that our own tables have for an ABI."""
    return {
        name: value
        for group in constants._own()
        for name, value in constants.constants(group, abi).items()
        if name in constants._own()[group] or any(name in of for of in subtables(group))
    }


def subtables(group: str) -> list[dict[str, int]]:
    """Return the tables of a group that are for some ABIs only."""
    return [table for table in constants._own()[group].values() if isinstance(table, dict)]


@pytest.mark.skipif(NATIVE is None, reason="headers are the machine's own")
def test_our_own_constants_are_the_kernels() -> None:
    """What a C compiler finds in the kernel's headers of this machine is what our tables say."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    unseen = own_constants(NATIVE)
    count = len(unseen)
    # Each header alone: some cannot stand together, and some are missing on older systems.
    for header in HEADERS:
        claims = "".join(
            f'_Static_assert((__u32)({name}) == {value % 2**32}u, "wrong {name}");\n'
            for name, value in unseen.items()
        )
        source = (
            f"#include <linux/types.h>\n#if __has_include(<{header}>)\n#include <{header}>\n#endif\n{claims}"
        )
        answer = subprocess.run(
            [compiler, "-fsyntax-only", "-fno-diagnostics-show-caret", "-x", "c", "-"],
            input=source,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        ).stderr
        unknown = re.findall(r"'(\w+)' undeclared|undeclared identifier '(\w+)'", answer)
        unseen = {name: unseen[name] for names in unknown for name in names if name in unseen}

        assert re.findall(r"wrong \w+", answer) == []
    assert count - len(unseen) > 500


@pytest.mark.skipif(NATIVE is None, reason="the module's values are the machine's own")
def test_flags_of_open_are_the_modules() -> None:
    """On the machine's own ABI each O_* is what Python's os says, O_LARGEFILE aside, which is 0 there."""
    known = constants.constants("open", NATIVE)
    theirs = {name: getattr(os, name) for name in known if name != "O_LARGEFILE"}
    assert dict(known) | theirs == dict(known)


def test_flags_of_clone_are_the_modules() -> None:
    """Where Python has them (3.12), they are ours."""
    known = constants.constants("clone", Abi.X86_64) | constants.constants("clone_time", Abi.X86_64)
    theirs = {name: value for name, value in vars(os).items() if name.startswith("CLONE_")}
    assert known | theirs == known


@pytest.mark.parametrize(
    ("abi", "directory", "nofollow", "direct", "largefile"),
    [
        (Abi.X86_64, 0x10000, 0x20000, 0x4000, 0x8000),
        (Abi.I386, 0x10000, 0x20000, 0x4000, 0x8000),
        (Abi.X32, 0x10000, 0x20000, 0x4000, 0x8000),
        (Abi.AARCH64, 0x4000, 0x8000, 0x10000, 0x20000),
        (Abi.ARM, 0x4000, 0x8000, 0x10000, 0x20000),
    ],
)
def test_flags_of_open_are_those_of_the_traced_abi(
    abi: Abi, directory: int, nofollow: int, direct: int, largefile: int
) -> None:
    """Four flags have other bits on arm than on x86, whatever the machine is that traces."""
    known = constants.constants("open", abi)
    found = [known[name] for name in ("O_DIRECTORY", "O_NOFOLLOW", "O_DIRECT", "O_LARGEFILE")]
    assert found == [directory, nofollow, direct, largefile]
    assert known["O_TMPFILE"] == directory | 0x400000


@pytest.mark.parametrize("abi", Abi)
@pytest.mark.parametrize("group", GROUPS)
def test_no_value_has_two_names(group: str, abi: Abi) -> None:
    """In a group on an ABI a value is called one thing."""
    known = constants.constants(group, abi)
    assert len(set(known.values())) == len(known)


@pytest.mark.parametrize("group", GROUPS)
def test_no_group_is_empty(group: str) -> None:
    """Some ABI has constants of each group."""
    assert any(constants.constants(group, abi) for abi in Abi)


def test_every_group_is_used() -> None:
    """No table is there for nothing, and none is missing."""
    used = {
        group
        for sort in SORTS
        for groups in (sort.one_of, sort.flags, *(of for _, of in sort.fields))
        for group in groups.split()
    }
    assert used == set(GROUPS)


def test_a_group_nobody_knows_is_an_error() -> None:
    """A misspelling shows at once."""
    with pytest.raises(KeyError):
        constants.constants("opne", Abi.X86_64)


def test_signals_are_called_as_the_kernel_does() -> None:
    """Real-time signals count from the kernel's first one, 32."""
    known = constants.constants("signal", Abi.X86_64)
    assert (known["SIGCHLD"], known["SIGTERM"], known["SIGRTMIN"], known["SIGRT_32"]) == (17, 15, 32, 64)
    assert set(known.values()) == set(range(1, 65))
