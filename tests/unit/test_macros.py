"""What the running kernel is like, as macros for the compiler."""

from pathlib import Path

import pytest

from otel_sysexit.kernel import macros
from otel_sysexit.kernel.probes import LoadError


class FakeBtf:
    """A kernel that has everything that is asked for, at offset 7."""

    def __init__(self, _: bytes) -> None:
        pass

    def offset_of(self, _structure: str, _member: str) -> int:
        """Return any number."""
        return 7

    def enumerator(self, enumeration: str, name: str) -> int:
        """Return 3 for the CPU controller, and nothing for what no kernel has."""
        return {("cgroup_subsys_id", "cpu_cgrp_id"): 3}[enumeration, name]


@pytest.fixture
def fake_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel whose BTF is `FakeBtf`, and that can do nothing more."""
    (tmp_path / "vmlinux").touch()
    monkeypatch.setattr(macros, "VMLINUX", tmp_path / "vmlinux")
    monkeypatch.setattr(macros, "Btf", FakeBtf)
    monkeypatch.setattr(macros, "has_task_btf", lambda: False)


@pytest.mark.parametrize(
    ("has_task_btf", "is_preemptible", "expected"),
    [
        (False, True, []),
        (True, False, ["-DHAVE_TASK_BTF"]),
        (True, True, ["-DHAVE_TASK_BTF", "-DPERF_EVENTS"]),
    ],
)
def test_what_the_kernel_can_do_becomes_macros(monkeypatch, has_task_btf, is_preemptible, expected):
    """Perf calls the programs where they could be preempted, and can say who is at work without raw arguments."""
    monkeypatch.setattr(macros, "has_task_btf", lambda: has_task_btf)
    monkeypatch.setattr(macros, "is_preemptible", lambda _offset: is_preemptible)

    assert macros.ability_flags(FakeBtf(b"")) == expected


def test_a_kernel_that_cannot_forbid_migration_preempts_nothing(monkeypatch):
    """Where a task has no such member, programs are as they always were."""
    monkeypatch.setattr(macros, "has_task_btf", lambda: True)
    monkeypatch.setattr(FakeBtf, "offset_of", lambda *_: {}["migration_disabled"])

    assert macros.ability_flags(FakeBtf(b"")) == ["-DHAVE_TASK_BTF"]


@pytest.mark.usefixtures("fake_kernel")
@pytest.mark.parametrize(
    ("asked", "has_cgroups", "subsystem"),
    [
        ([], False, []),
        (["-DSELECT_PID"], False, []),
        (["-DSELECT_CGROUP"], True, []),
        (["-DEXCLUDE_CGROUP", "-DCGROUP_SUBSYSTEM=cpu"], True, ["-DCGROUP_SUBSYSTEM=3"]),
    ],
)
def test_the_kernel_is_asked_for_what_is_needed(asked, has_cgroups, subsystem):
    """Members of cgroups are looked for where cgroups are; a controller's name becomes the index that this kernel gave it."""
    flags = macros.kernel_flags(asked)

    assert "-DTASK_STRUCT_TGID=7" in flags
    assert ("-DCSS_SET_DFL_CGRP=7" in flags) == has_cgroups
    assert [flag for flag in flags if flag.startswith("-DCGROUP_SUBSYSTEM=")] == subsystem


@pytest.mark.usefixtures("fake_kernel")
def test_a_kernel_without_a_member_is_said(monkeypatch):
    """What is missing is named, in one line."""

    def offset_of(_self: FakeBtf, structure: str, member: str) -> int:
        raise KeyError(f"{structure}.{member}")

    monkeypatch.setattr(FakeBtf, "offset_of", offset_of)
    with pytest.raises(LoadError, match=r"lacks what is needed: 'task_struct\.tgid'") as caught:
        macros.kernel_flags([])

    assert caught.value.kind == "bad-btf"
