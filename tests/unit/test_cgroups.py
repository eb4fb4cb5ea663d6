"""Which container a cgroup belongs to, and what a path means in the hierarchies that are mounted."""

import pytest
from fake_proc import FakeProc

from otel_sysexit.cgroups import (
    Cgroup,
    Containers,
    Membership,
    containers_of,
    find_cgroup,
    find_membership,
    read_mounts,
    subsystem,
)
from otel_sysexit.procfs import parse_cgroups

A = "7be92808767a667f35c8505cbf40d14e931ef6db5b0210329cf193b15ba9d605"
B = "3f1c9d2b60a7e84d5f6ab01928374655aabbccddeeff00112233445566778899"
ECS_TASK = "b5e0c3a1d2f4468fa3c9e7d15a6b8c90"
POD = "pod05869489-8c7f-45dc-9abd-1b1620787bb1"
POD_ = POD.replace("-", "_")
POD_UID = POD.removeprefix("pod")
STATIC_UID = "81cdabfc720501d9e81b425b15921b4d"

BURSTABLE = f"kubepods-burstable-{POD_}.slice"
USER = "/user.slice/user-1000.slice/user@1000.service/user.slice"

# What runs: a line of /proc/PID/cgroup, the containers from the outermost to the innermost, what is below the last one.
LINES = {
    "docker, v1": (f"12:memory:/docker/{A}", [A], ""),
    "docker, v1, joint controllers": (f"4:cpu,cpuacct:/docker/{A}", [A], ""),
    "docker, v1, named hierarchy": (f"1:name=systemd:/docker/{A}", [A], ""),
    "docker, v1, systemd": (f"9:pids:/system.slice/docker-{A}.scope", [A], ""),
    "docker, v2": (f"0::/docker/{A}", [A], ""),
    "docker, v2, systemd": (f"0::/system.slice/docker-{A}.scope", [A], ""),
    "docker, own init": (f"0::/docker/{A}/init", [A], "/init"),
    "docker, from another namespace": (f"0::/../../docker/{A}", [A], ""),
    "docker, rootless": (f"0::{USER}/docker-{A}.scope", [A], ""),
    "docker in docker": (f"0::/docker/{A}/docker/{B}", [A, B], ""),
    "docker in docker, a process outside": (f"0::/docker/{A}/system.slice/sshd.service", [A], "/system.slice/sshd.service"),
    "kubernetes in docker": (f"0::/docker/{A}/kubelet.slice/{BURSTABLE}/cri-containerd-{B}.scope", [A, B], ""),
    "kubernetes, cgroupfs": (f"11:memory:/kubepods/besteffort/{POD}/{A}", [A], ""),
    "kubernetes, cgroupfs, guaranteed": (f"0::/kubepods/{POD}/{A}", [A], ""),
    "kubernetes, static pod": (f"0::/kubepods/burstable/pod{ECS_TASK}/{A}", [A], ""),
    "kubernetes, systemd": (f"0::/kubepods.slice/{BURSTABLE}/cri-containerd-{A}.scope", [A], ""),
    "kubernetes, drivers at odds": (f"0::/system.slice/containerd.service/{BURSTABLE}:cri-containerd:{A}", [A], ""),
    "kubernetes, docker": (f"0::/kubepods.slice/{BURSTABLE}/docker-{A}.scope", [A], ""),
    "containerd": (f"0::/k8s.io/{A}", [A], ""),
    "nerdctl": (f"0::/system.slice/nerdctl-{A}.scope", [A], ""),
    "cri-o": (f"0::/kubepods.slice/{BURSTABLE}/crio-{A}.scope/container", [A], "/container"),
    "cri-o, cgroupfs": (f"5:pids:/kubepods/{POD}/crio-{A}", [A], ""),
    "cri-o's monitor": (f"0::/kubepods.slice/{BURSTABLE}/crio-conmon-{A}.scope", [], ""),
    "podman": (f"0::/machine.slice/libpod-{A}.scope/container", [A], "/container"),
    "podman, v1": (f"3:devices:/machine.slice/libpod-{A}.scope", [A], ""),
    "podman, cgroupfs": (f"0::/libpod_parent/libpod-{A}", [A], ""),
    "podman, cgroupfs, in a pod": (f"0::/libpod_parent/{B}/libpod-{A}", [A], ""),
    "podman's monitor, cgroupfs": ("0::/libpod_parent/conmon", [], ""),
    "podman's monitor, cgroupfs, in a pod": (f"0::/libpod_parent/{B}/conmon", [], ""),
    "podman, in a pod": (f"0::/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope/container", [A], "/container"),
    "podman, rootless": (f"0::{USER}/libpod-{A}.scope/container", [A], "/container"),
    "podman's monitor": (f"0::/machine.slice/libpod-conmon-{A}.scope", [], ""),
    "ecs": (f"9:perf_event:/ecs/{ECS_TASK}/{A}", [A], ""),
    "ecs, task named by a uuid": (f"9:cpuset:/ecs/55091c13-b8cf-4801-b527-f4601742204d/{A}", [A], ""),
    "ecs, v2": (f"0::/ecstasks.slice/ecstasks-{ECS_TASK}.slice/docker-{A}.scope", [A], ""),
    "ecs, fargate": (f"8:memory:/ecs/{ECS_TASK}/{ECS_TASK}-2531612879", [f"{ECS_TASK}-2531612879"], ""),
    "a system service": ("0::/system.slice/nginx.service", [], ""),
    "a desktop's application": ("0::/user.slice/app-org.gnome.Terminal-3f1c9d2b.scope", [], ""),
    "a user's session": ("1:name=systemd:/user.slice/user-1000.slice/session-3.scope", [], ""),
    "a user's session, v2": ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/dbus.service", [], ""),
    "a transient unit": (f"0::/system.slice/run-r{ECS_TASK}.scope", [], ""),
    "a snap": (f"0::{USER}/snap.firefox.firefox-{POD.removeprefix('pod')}.scope", [], ""),
    "a container's mount": (f"0::/system.slice/var-lib-docker-overlay2-{A}-merged.mount", [], ""),
    "docker's daemon": ("0::/system.slice/docker.service", [], ""),
    "buildkit": ("0::/docker/buildkit/xqmy3jkl0b7v3ufnlgmbe16rp", [], ""),
    "lxc": ("0::/lxc.payload.web/system.slice/nginx.service", [], ""),
    "lxc, v1": ("4:memory:/lxc/web", [], ""),
    "lxc's monitor": ("0::/lxc.monitor.web", [], ""),
    "systemd-nspawn": ("0::/machine.slice/systemd-nspawn@web.service/payload", [], ""),
    "a virtual machine": ("0::/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator", [], ""),
    "a group named by a uuid": (f"0::/jobs/{POD.removeprefix('pod')}", [], ""),
    "a group named by 63 digits": (f"0::/jobs/{A[1:]}", [], ""),
    "a group named by 65 digits": (f"0::/jobs/0{A}", [], ""),
    "a group named by 64 digits and more": (f"0::/jobs/{A}.service", [], ""),
    "a group named by capitals": (f"0::/jobs/{A.upper()}", [], ""),
    "a group named by 32 digits": (f"4:memory:/api/{ECS_TASK}", [], ""),
    "the root": ("0::/", [], ""),
}  # fmt: skip


@pytest.mark.parametrize(("line", "ids", "below"), LINES.values(), ids=LINES.keys())
def test_the_container_of_a_cgroup_is_known_by_its_path(line, ids, below):
    """Each runtime's way to name a container's cgroup gives the id, a nested one the outer ids before it."""
    (cgroup,) = parse_cgroups(line).values()
    found = list(containers_of(cgroup))

    assert [container for container, _ in found] == ids
    assert [path for _, path in found][-1:] == ([cgroup.removesuffix(below)] if ids else [])


# What runs: a /proc/PID/cgroup, the container and the pod of its process.
V1 = ("12:pids:", "11:memory:", "4:cpu,cpuacct:", "1:name=systemd:")
CGROUPS = {
    "docker, cgroupfs, v1": ([*(f"{line}/docker/{A}" for line in V1), "0::/system.slice/containerd.service"], A, None),
    "docker, systemd, v1": ([f"{line}/system.slice/docker-{A}.scope" for line in V1], A, None),
    "docker, systemd, v2": ([f"0::/system.slice/docker-{A}.scope"], A, None),
    "docker, from another namespace": ([f"0::/../../docker/{A}"], A, None),
    "docker in a pod": ([f"0::/kubepods.slice/{BURSTABLE}/cri-containerd-{A}.scope/docker/{B}"], B, POD_UID),
    "podman, rootful": ([f"0::/machine.slice/libpod-{A}.scope/container"], A, None),
    "podman, rootful, in a pod": ([f"0::/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope"], A, None),
    "podman, rootless": ([f"0::{USER}/libpod-{A}.scope/container"], A, None),
    "podman, rootless, v1": ([*(f"{line}/user.slice" for line in V1), f"0::{USER}/podman-4711.scope"], None, None),
    "kubernetes, cgroupfs, burstable": ([f"{line}/kubepods/burstable/{POD}/{A}" for line in V1], A, POD_UID),
    "kubernetes, cgroupfs, best effort": ([f"0::/kubepods/besteffort/{POD}/{A}"], A, POD_UID),
    "kubernetes, cgroupfs, guaranteed": ([f"0::/kubepods/{POD}/{A}"], A, POD_UID),
    "kubernetes, cgroupfs, static pod": ([f"0::/kubepods/burstable/pod{STATIC_UID}/{A}"], A, STATIC_UID),
    "kubernetes, cgroupfs, cri-o": ([f"0::/kubepods/{POD}/crio-{A}"], A, POD_UID),
    "kubernetes, systemd, burstable": ([f"0::/kubepods.slice/{BURSTABLE}/cri-containerd-{A}.scope"], A, POD_UID),
    "kubernetes, systemd, guaranteed": ([f"0::/kubepods.slice/kubepods-{POD_}.slice/cri-containerd-{A}.scope"], A, POD_UID),
    "kubernetes, systemd, static pod": ([f"0::/kubepods.slice/kubepods-burstable-pod{STATIC_UID}.slice/crio-{A}.scope"], A, STATIC_UID),
    "kubernetes, systemd, docker": ([f"{line}/kubepods.slice/{BURSTABLE}/docker-{A}.scope" for line in V1], A, POD_UID),
    "kubernetes, systemd, cri-o": ([f"0::/kubepods.slice/{BURSTABLE}/crio-{A}.scope/container"], A, POD_UID),
    "kubernetes, systemd, another namespace": ([f"0::/../../{BURSTABLE}/cri-containerd-{A}.scope"], A, POD_UID),
    "kubernetes, drivers at odds": ([f"0::/system.slice/containerd.service/{BURSTABLE}:cri-containerd:{A}"], A, POD_UID),
    "kubernetes in docker": ([f"0::/docker/{B}/kubelet.slice/kubelet-kubepods.slice/kubelet-{BURSTABLE}/cri-containerd-{A}.scope"], A, POD_UID),
    "a pod's cri-o monitor": ([f"0::/kubepods.slice/{BURSTABLE}/crio-conmon-{A}.scope"], None, POD_UID),
    "ecs": ([f"{line}/ecs/{ECS_TASK}/{A}" for line in V1], A, None),
    "ecs, fargate": ([f"{line}/ecs/{ECS_TASK}/{ECS_TASK}-2531612879" for line in V1], f"{ECS_TASK}-2531612879", None),
    "hybrid, containers in v1 only": ([*(f"{line}/kubepods/{POD}/{A}" for line in V1), "0::/system.slice/kubelet.service"], A, POD_UID),
    "hybrid, containers in a named hierarchy only": ([f"1:name=systemd:/docker/{A}", "0::/"], A, None),
    "hybrid, at odds": ([f"12:pids:/docker/{B}", f"0::/docker/{A}"], A, None),
    "hybrid, at odds about the pod": ([f"12:pids:/kubepods/{POD}/{B}", f"0::/docker/{A}"], A, None),
    "v1, at odds": ([f"12:pids:/docker/{A}", f"11:memory:/docker/{B}"], A, None),
    "a service": (["1:name=systemd:/system.slice/nginx.service", "0::/system.slice/nginx.service"], None, None),
    "a group named as a pod, nearly": ([f"0::/my{POD}/{POD}x/pod-{POD_UID}"], None, None),
    "nothing": ([], None, None),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "container", "pod"), CGROUPS.values(), ids=CGROUPS.keys())
def test_a_process_belongs_to_its_innermost_container_and_pod(lines, container, pod):
    """Whatever runtime, driver and version of cgroups: v2's path counts first, then v1's in their order."""
    assert find_membership(parse_cgroups("\n".join(lines))) == Membership(container, pod)


@pytest.fixture
def proc(tmp_path):
    """Return an empty fake /proc."""
    return FakeProc(tmp_path / "proc")


def test_a_cgroup_contains_itself_and_all_below():
    """Paths are compared by whole components; the root contains everything."""
    cgroup = Cgroup("", "/a/b", 1)

    assert [cgroup.contains(path) for path in ("/a/b", "/a/b/c", "/a/bc", "/a", None)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert Cgroup("", "/", 1).contains("/a")
    assert Cgroup("", "/", 1).contains("/")


def test_a_path_means_a_cgroup_in_every_hierarchy_that_has_it(proc, tmp_path):
    """A path below the root may exist in several hierarchies; the inode is that of the directory there."""
    for controllers, name in (("cpu,cpuacct", "cpu"), ("memory", "memory"), ("", "unified")):
        proc.mount(controllers, tmp_path / name)
    (tmp_path / "cpu" / "web").mkdir()
    (tmp_path / "unified" / "web").mkdir()

    assert find_cgroup("/web", read_mounts(proc.root)) == {
        "cpu,cpuacct": {Cgroup("cpu,cpuacct", "/web", (tmp_path / "cpu" / "web").stat().st_ino)},
        "": {Cgroup("", "/web", (tmp_path / "unified" / "web").stat().st_ino)},
    }


def test_a_full_path_means_one_cgroup(proc, tmp_path):
    """With its mount point before it, a path is looked up there only; a blank in it does no harm."""
    proc.mount("memory", tmp_path / "me mory")
    proc.mount("", tmp_path / "unified")
    (tmp_path / "me mory" / "web").mkdir()
    (tmp_path / "unified" / "web").mkdir()
    (meaning,) = find_cgroup(f"{tmp_path}/me mory/web", read_mounts(proc.root)).values()

    assert {(cgroup.controllers, cgroup.path) for cgroup in meaning} == {("memory", "/web")}


def test_a_mount_point_means_the_root(proc, tmp_path):
    """The directory where a hierarchy is mounted is its root cgroup."""
    proc.mount("", tmp_path / "cgroup")
    (meaning,) = find_cgroup(f"{tmp_path}/cgroup", read_mounts(proc.root)).values()

    assert {cgroup.path for cgroup in meaning} == {"/"}


def test_a_part_of_a_hierarchy_can_be_mounted(proc, tmp_path):
    """In a container that was given a part, paths are the whole hierarchy's, as in /proc/PID/cgroup."""
    proc.mount("memory", tmp_path / "cgroup", root="/docker/x")
    (tmp_path / "cgroup" / "sub").mkdir()
    mounts = read_mounts(proc.root)
    meanings = [find_cgroup(path, mounts) for path in ("/docker/x/sub", f"{tmp_path}/cgroup/sub")]

    assert [cgroup.path for meaning in meanings for cgroup in meaning["memory"]] == ["/docker/x/sub"] * 2
    with pytest.raises(LookupError, match="there is no cgroup '/sub'"):
        find_cgroup("/sub", mounts)


@pytest.mark.parametrize("name", ["nothing", "cgroup.procs"])
def test_what_is_no_directory_is_no_cgroup(proc, tmp_path, name):
    """Neither a missing directory nor one of the files in it."""
    proc.mount("", tmp_path / "cgroup")
    (tmp_path / "cgroup" / "cgroup.procs").touch()

    with pytest.raises(LookupError, match="there is no cgroup"):
        find_cgroup(f"/{name}", read_mounts(proc.root))


def test_a_hierarchy_without_a_controller_is_none_of_ours(proc, tmp_path):
    """The kernel leads from a task to its cgroup by a controller: a hierarchy that has only a name is left out."""
    proc.mount("name=systemd", tmp_path / "systemd")
    proc.mount("pids", tmp_path / "pids")

    assert [mount.controllers for mount in read_mounts(proc.root)] == ["pids"]


def test_cgroup_v2_comes_first(proc, tmp_path):
    """On a hybrid host v2 is preferred, whatever the order of mounts."""
    proc.mount("pids", tmp_path / "pids")
    proc.mount("", tmp_path / "unified")

    assert [mount.controllers for mount in read_mounts(proc.root)] == ["", "pids"]


@pytest.mark.parametrize(
    ("controllers", "name"),
    [
        ("", None),
        ("name=systemd", None),
        ("cpu,cpuacct", "cpu"),
        ("blkio", "io"),
        ("name=x,net_cls", "net_cls"),
    ],
)
def test_a_hierarchy_has_a_subsystem(controllers, name):
    """The kernel calls a hierarchy by one of its controllers, the block one by its v2 name."""
    assert subsystem(controllers) == name


def test_a_container_is_found_by_the_beginning_of_its_id(proc, tmp_path):
    """Its cgroup is the one that carries the id, not the one below in which its processes are."""
    proc.mount("", tmp_path / "cgroup")
    proc.add(5, cgroup=f"0::/machine.slice/libpod-{A}.scope/container")
    directory = tmp_path / "cgroup" / "machine.slice" / f"libpod-{A}.scope"
    directory.mkdir(parents=True)
    meanings = Containers(proc.root).find(A[:6], read_mounts(proc.root))

    assert meanings == {"": {Cgroup("", f"/machine.slice/libpod-{A}.scope", directory.stat().st_ino)}}


def test_a_container_that_holds_only_containers_is_found(proc, tmp_path):
    """Every process may be in an inner container: the outer one is there all the same."""
    proc.mount("", tmp_path / "cgroup")
    proc.add(5, cgroup=f"0::/docker/{A}/docker/{B}")
    (tmp_path / "cgroup" / "docker" / A / "docker" / B).mkdir(parents=True)
    containers, mounts = Containers(proc.root), read_mounts(proc.root)
    paths = [next(iter(containers.find(prefix, mounts)[""])).path for prefix in (A, B)]

    assert paths == [f"/docker/{A}", f"/docker/{A}/docker/{B}"]


def test_a_container_on_a_hybrid_host_is_found_where_its_runtime_put_it(proc, tmp_path):
    """Where v2 is mounted but not used for containers, the v1 hierarchies have them."""
    proc.mount("", tmp_path / "unified")
    proc.mount("memory", tmp_path / "memory")
    proc.add(
        5, cgroup=f"2:memory:/docker/{A}\n1:name=systemd:/docker/{A}\n0::/system.slice/containerd.service"
    )
    (tmp_path / "memory" / "docker" / A).mkdir(parents=True)

    assert set(Containers(proc.root).find(A, read_mounts(proc.root))) == {"memory"}


def test_an_unknown_container_is_told_from_those_that_run(proc):
    """The ids that exist are listed, short, ten at most, and then how many more."""
    for number in range(12):
        proc.add(100 + number, cgroup=f"0::/docker/{number:x}{A[1:]}")

    with pytest.raises(LookupError) as caught:
        Containers(proc.root).find("feed", [])
    shown = ", ".join(f"{number:x}{A[1:12]}" for number in range(10))
    assert str(caught.value) == f"there is no container 'feed': running are {shown} and 2 more"


def test_without_containers_none_is_found(proc):
    """Where none runs, that is what is said."""
    proc.add(5)

    with pytest.raises(LookupError, match="there is no container 'feed': none is running"):
        Containers(proc.root).find("feed", [])


def test_an_ambiguous_beginning_is_refused(proc):
    """The beginning of several ids is answered with them."""
    proc.add(5, cgroup=f"0::/docker/{A}")
    proc.add(6, cgroup=f"0::/docker/{A[:8]}{B[8:]}")
    proc.add(7, cgroup=f"0::/docker/{B}")

    with pytest.raises(LookupError) as caught:
        Containers(proc.root).find(A[:8], [])
    both = ", ".join(sorted((A[:12], A[:8] + B[8:12])))
    assert str(caught.value) == f"several containers begin with {A[:8]!r}: {both}"


def test_a_container_out_of_sight_is_explained(proc, tmp_path):
    """In a cgroup namespace of our own the directory is not to be seen: one line says what to give us."""
    proc.mount("", tmp_path / "cgroup")
    proc.add(5, cgroup=f"0::/../{A}")

    with pytest.raises(LookupError, match="--cgroupns=host"):
        Containers(proc.root).find(A, read_mounts(proc.root))
