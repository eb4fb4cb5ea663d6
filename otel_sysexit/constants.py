"""
Names of the kernel's constants, in groups: `open` has O_CREAT, `signal` has SIGTERM.

Values that are the same on every ABI come from the standard library, as far as it has them; the others, and those that
differ by ABI, from data/constants.toml.
"""

import fcntl
import fnmatch
import mmap
import os
import resource
import select
import signal
import socket
import termios
import time
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from otel_sysexit.syscalls import Abi

# Group -> module, names or globs; a minus leaves out what is a second name for a value, or of another group.
_STANDARD: Final[Mapping[str, tuple[ModuleType, str]]] = {
    "access": (os, "R_OK W_OK X_OK"),
    "access_mode": (os, "O_RDONLY O_WRONLY O_RDWR"),
    "advice": (os, "POSIX_FADV_*"),
    "clock": (time, "CLOCK_*"),
    "directory_events": (fcntl, "DN_*"),
    "epoll_create": (select, "EPOLL_CLOEXEC"),
    "family": (socket, "AF_* -AF_ROUTE -AF_SYSTEM -AF_LINK"),
    "fcntl": (fcntl, """
        F_DUPFD_CLOEXEC F_GETFD F_SETFD F_GETFL F_SETFL F_SETOWN F_GETOWN F_SETSIG F_GETSIG F_SETLEASE F_GETLEASE F_NOTIFY
        F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_GET_SEALS F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW"""),
    "fd_flags": (fcntl, "FD_CLOEXEC"),
    "flock": (fcntl, "LOCK_SH LOCK_EX LOCK_UN LOCK_NB LOCK_MAND LOCK_READ LOCK_WRITE"),
    "getrandom": (os, "GRND_*"),
    "idtype": (os, "P_ALL P_PID P_PGID"),
    "ioctl": (termios, "TCGET* TCSET* TCSBRK* TCFLSH TCXONC TIOC* FIO* -TIOCINQ -TIOCM_* -TIOCPKT_* -TIOCSER_TEMT"),
    "ip": (socket, "IP_* -IP_DEFAULT_* -IP_MAX_* -IP_RECVRETOPTS -IP_PMTUDISC_*"),
    "ipproto": (socket, "IPPROTO_* -IPPROTO_HOPOPTS"),
    "ipv6": (socket, "IPV6_* -IPV6_RTHDR_* -IPV6_PMTUDISC_*"),
    "lease": (fcntl, "F_RDLCK F_WRLCK F_UNLCK"),
    "level": (socket, "SOL_SOCKET SOL_IP SOL_TCP SOL_UDP SOL_CAN_RAW SOL_TIPC SOL_RDS"),
    "madvise": (mmap, "MADV_*"),
    "map_type": (mmap, "MAP_SHARED MAP_PRIVATE"),
    "memfd": (os, "MFD_CLOEXEC MFD_ALLOW_SEALING MFD_HUGETLB"),
    "memfd_huge": (os, "MFD_HUGE_*B"),
    "mmap": (mmap, "MAP_DENYWRITE MAP_EXECUTABLE MAP_ANONYMOUS MAP_POPULATE MAP_STACK"),
    "msg": (socket, "MSG_* -MSG_EOF -MSG_BCAST -MSG_MCAST"),
    "open": (os, "O_CREAT O_EXCL O_NOCTTY O_TRUNC O_APPEND O_NONBLOCK O_DSYNC O_ASYNC O_NOATIME O_CLOEXEC O_SYNC O_PATH"),
    "dup": (os, "O_CLOEXEC"),
    "mq_open": (os, "O_CREAT O_EXCL O_NONBLOCK O_CLOEXEC"),
    "policy": (os, "SCHED_OTHER SCHED_FIFO SCHED_RR SCHED_BATCH SCHED_IDLE"),
    "policy_flags": (os, "SCHED_RESET_ON_FORK"),
    "priority": (os, "PRIO_PROCESS PRIO_PGRP PRIO_USER"),
    "prot": (mmap, "PROT_READ PROT_WRITE PROT_EXEC"),
    "resource": (resource, "RLIMIT_* -RLIMIT_OFILE"),
    "rusage": (resource, "RUSAGE_*"),
    "rwf": (os, "RWF_*"),
    "seals": (fcntl, "F_SEAL_*"),
    "shutdown": (socket, "SHUT_*"),
    "signal": (signal, "SIG[A-Z]* -SIGCLD -SIGIOT -SIGPOLL -SIGRTMIN -SIGRTMAX"),
    "so": (socket, """
        SO_DEBUG SO_REUSEADDR SO_TYPE SO_ERROR SO_DONTROUTE SO_BROADCAST SO_SNDBUF SO_RCVBUF SO_KEEPALIVE SO_OOBINLINE
        SO_PRIORITY SO_LINGER SO_REUSEPORT SO_PASSCRED SO_PEERCRED SO_RCVLOWAT SO_SNDLOWAT SO_RCVTIMEO SO_SNDTIMEO
        SO_BINDTODEVICE SO_ACCEPTCONN SO_PEERSEC SO_PASSSEC SO_MARK SO_PROTOCOL SO_DOMAIN SO_INCOMING_CPU"""),
    "socket_flags": (socket, "SOCK_NONBLOCK SOCK_CLOEXEC"),
    "socket_type": (socket, "SOCK_STREAM SOCK_DGRAM SOCK_RAW SOCK_RDM SOCK_SEQPACKET"),
    "splice": (os, "SPLICE_F_*"),
    "tcp": (socket, "TCP_* -TCP_CC_INFO"),
    "wait": (os, "WNOHANG WUNTRACED WCONTINUED"),
    "waitid": (os, "WNOHANG WSTOPPED WEXITED WCONTINUED WNOWAIT"),
    "whence": (os, "SEEK_*"),
    "xattr": (os, "XATTR_CREATE XATTR_REPLACE"),
}  # fmt: skip


# The families of ABIs that data/constants.toml has subtables for.
_FAMILIES: Final[Mapping[str, tuple[Abi, ...]]] = {
    "x86": (Abi.X86_64, Abi.I386, Abi.X32),
    "arm": (Abi.AARCH64, Abi.ARM),
    "32_bit": (Abi.I386, Abi.ARM),
}
_SIGRTMIN: Final = 32
"""The kernel's; the C library keeps the first ones for itself."""


@cache
def constants(group: str, abi: Abi) -> Mapping[str, int]:
    """
    Return name -> value for a group of constants on an ABI.

    Raises:
        KeyError: There is no such group.
    """
    own = _own().get(group, {})
    found = _standard(*_STANDARD[group]) if group in _STANDARD or not own else {}
    found |= {name: value for name, value in own.items() if name not in _FAMILIES}
    for family, abis in _FAMILIES.items():
        if abi in abis:
            found |= own.get(family, {})
    if group == "signal":
        found |= {"SIGRTMIN": _SIGRTMIN} | {f"SIGRT_{i}": _SIGRTMIN + i for i in range(1, 33)}
    return found


@cache
def _own() -> Mapping[str, Mapping[str, Any]]:
    with (Path(__file__).parent / "data" / "constants.toml").open("rb") as file:
        return tomllib.load(file)


def _standard(module: ModuleType, patterns: str) -> dict[str, int]:
    numbers = {name: int(value) for name, value in vars(module).items() if isinstance(value, int)}
    found: dict[str, int] = {}
    for pattern in patterns.split():
        for name in fnmatch.filter(numbers, pattern.removeprefix("-")):
            if pattern.startswith("-"):
                found.pop(name, None)
            else:
                found[name] = numbers[name]
    return found
