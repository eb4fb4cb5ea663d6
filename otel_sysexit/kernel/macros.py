"""
Macros that say what the running kernel is like: where members of its structures are, and what it can do.

In: BTF and probes. Out: `-D` flags for the compiler; bpf/base.bpf.c explains them.
"""

import platform
from typing import Final

from otel_sysexit.kernel.btf import VMLINUX, Btf
from otel_sysexit.kernel.probes import LoadError, has_task_btf, is_preemptible

PERF_EVENTS: Final = "-DPERF_EVENTS"

_MEMBERS: Final = {
    "task_struct": (
        "tgid",
        "pid",
        "group_leader",
        "real_parent",
        "start_boottime",
        "mm",
        "exit_code",
        "signal",
        "comm",
        "cred",
        "files",
        "thread_pid",
    ),
    "signal_struct": ("live", "flags", "group_exit_code"),
    "mm_struct": ("arg_start", "arg_end", "exe_file"),
    "cred": ("uid", "euid", "gid", "egid"),
    "pid": ("level", "numbers"),
    "files_struct": ("fdt",),
    "fdtable": ("fd", "max_fds"),
    "file": ("f_path.dentry", "f_path.mnt", "f_inode", "f_op"),
    "dentry": ("d_parent", "d_name.name", "d_name.len", "d_name.hash_len"),
    "inode": ("i_mode", "i_ino"),
    "vfsmount": ("mnt_root",),
    "mount": ("mnt", "mnt_parent", "mnt_mountpoint"),
    "linux_binprm": ("filename",),
}
# Only where cgroups matter: a kernel without lacks them.
_CGROUP_MEMBERS: Final = {
    "task_struct": ("cgroups",),
    "css_set": ("dfl_cgrp", "subsys"),
    "cgroup": ("kn", "self"),
    "cgroup_subsys_state": ("cgroup", "parent"),
    "kernfs_node": ("id",),
}
_ARCHITECTURES: Final = {
    "x86_64": ("ARCH_X86_64", "thread_info.status"),
    "aarch64": ("ARCH_AARCH64", "thread_info.flags"),
}


def offset_flags(subsystem: str | None, *, has_cgroups: bool) -> list[str]:
    """
    Return `-DSTRUCT_MEMBER=offset` for each member that `bpf/` reads, and what else there is to say of the running kernel.

    Args:
        subsystem: The controller whose index in css_set.subsys is CGROUP_SUBSYSTEM; None: not needed.
        has_cgroups: Whether members of cgroups are read.
    """
    macro, compat = _ARCHITECTURES[platform.machine()]
    wanted = [*_MEMBERS.items(), *(_CGROUP_MEMBERS.items() if has_cgroups else ())]
    try:
        btf = Btf(VMLINUX.read_bytes())
        flags = [
            f"-D{structure}_{member}".replace(".", "_").upper() + f"={btf.offset_of(structure, member)}"
            for structure, members in wanted
            for member in members
        ]
        flags.append(f"-DTASK_STRUCT_COMPAT_FLAGS={btf.offset_of('task_struct', compat)}")
        if subsystem is not None:
            flags.append(f"-DCGROUP_SUBSYSTEM={btf.enumerator('cgroup_subsys_id', f'{subsystem}_cgrp_id')}")
    except (KeyError, ValueError, OSError) as error:
        raise LoadError("bad-btf", f"{VMLINUX} lacks what is needed: {error}") from error
    return [f"-D{macro}", *flags, *ability_flags(btf)]


def ability_flags(btf: Btf) -> list[str]:
    """Return the macros for what the running kernel can do."""
    if not has_task_btf():
        return []
    try:
        migration_disabled = btf.offset_of("task_struct", "migration_disabled")
    except KeyError:  # a kernel before 5.11, or for one CPU
        return ["-DHAVE_TASK_BTF"]
    return ["-DHAVE_TASK_BTF", *([PERF_EVENTS] if is_preemptible(migration_disabled) else [])]


def kernel_flags(cflags: list[str]) -> list[str]:
    """Return the macros that say what the running kernel is like, as far as *cflags* need it."""
    asked = dict(flag.removeprefix("-D").partition("=")[::2] for flag in cflags)
    has_cgroups = not asked.keys().isdisjoint(("CGROUPS", "SELECT_CGROUP", "EXCLUDE_CGROUP"))
    return offset_flags(asked.get("CGROUP_SUBSYSTEM"), has_cgroups=has_cgroups)
