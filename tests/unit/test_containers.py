"""Which container a process is in, seen from outside of all containers and from inside of one."""

from pathlib import Path

import pytest
from fake_proc import PF_EXITING, FakeProc

from otel_sysexit.cgroups import Membership
from otel_sysexit.containers import CgroupIndex, read_membership

A = "7be92808767a667f35c8505cbf40d14e931ef6db5b0210329cf193b15ba9d605"
B = "3f1c9d2b60a7e84d5f6ab01928374655aabbccddeeff00112233445566778899"
POD_UID = "05869489-8c7f-45dc-9abd-1b1620787bb1"
OTHER_UID = "038e2267-b473-489b-b48c-46bafdb852eb"
KUBELET = f"/var/lib/kubelet/pods/{POD_UID}"
SANDBOXES = "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes"


@pytest.fixture
def proc(tmp_path):
    """Return an empty fake /proc, of the initial cgroup namespace."""
    return FakeProc(tmp_path / "proc")


@pytest.fixture
def inside(proc):
    """Return a fake /proc as seen in a cgroup namespace of our own."""
    (proc.root / "self" / "ns").mkdir()
    (proc.root / "self" / "ns" / "cgroup").touch()
    return proc


def mount_files(proc: FakeProc, sources: dict[str, str]) -> None:
    """Let our own mounts have these files from these sources."""
    lines = [f"40 39 0:40 {source} {file} rw - ext4 /dev/x rw\n" for file, source in sources.items()]
    (proc.root / "self" / "mountinfo").write_text("".join(lines))


def show_host(proc: FakeProc, hierarchy: Path, root: str) -> None:
    """Let v2's *hierarchy* be the host's, and its part *root* what is mounted for us; init hides it, process 2 does not."""
    (hierarchy / root).mkdir(parents=True)
    proc.mount("", hierarchy / root)
    for pid in (1, 2):
        proc.add(pid, cgroup="0::/../../init.scope")
        folder = proc.root / str(pid)
        (folder / "ns").mkdir()
        for kind in ("cgroup", "mnt"):
            (folder / "ns" / kind).touch()
        (folder / "mountinfo").write_text("31 23 0:28 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
        (folder / "root" / "sys" / "fs").mkdir(parents=True)
    (proc.root / "2" / "root" / "sys" / "fs" / "cgroup").symlink_to(hierarchy)


# --- from outside -----------------------------------------------------------------------------------------------------


def test_a_process_is_in_the_container_that_its_cgroup_names(proc):
    """/proc/PID/cgroup is read and understood; a process in the root cgroup is in none."""
    proc.add(5, cgroup=f"0::/kubepods/pod{POD_UID}/{A}")
    proc.add(6, cgroup="0::/")

    assert read_membership(5, proc.root) == Membership(A, POD_UID)
    assert read_membership(6, proc.root) == Membership()


@pytest.mark.parametrize("end", [{"state": "Z"}, {"flags": PF_EXITING}])
def test_of_a_process_that_ends_nothing_is_known(proc, end):
    """The kernel moves it to the root of every v1 hierarchy: that is not where it was."""
    proc.add(5, cgroup="4:memory:/", **end)

    assert read_membership(5, proc.root) is None


def test_of_a_process_that_is_gone_nothing_is_known(proc):
    """That is something else than to be in no container."""
    assert read_membership(5, proc.root) is None


def test_mounts_say_nothing_in_the_initial_namespace(proc):
    """There `/` is the root: it is no container's, whatever is mounted."""
    mount_files(proc, {"/etc/hostname": f"/var/lib/docker/containers/{A}/hostname"})
    proc.add(5, cgroup="0::/")

    assert read_membership(5, proc.root) == Membership()


# --- from inside ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", Membership(A, POD_UID)),
        ("/init", Membership(A, POD_UID)),
        (f"/docker/{B}", Membership(B, POD_UID)),
        (f"/../{B}", Membership(B, POD_UID)),
        (f"/../../pod{OTHER_UID}/{B}", Membership(B, OTHER_UID)),
        ("/../../../system.slice/sshd.service", Membership()),
    ],
    ids=["ours", "below", "within ours", "of the same pod", "elsewhere", "in none"],
)
def test_paths_are_completed_by_where_we_are(inside, tmp_path, path, expected):
    """The folder that is our root is found in the host's hierarchy, which init sees: what it is called there is our path."""
    show_host(inside, tmp_path / "host", f"kubepods/pod{POD_UID}/{A}")
    inside.add(5, cgroup=f"0::{path}")

    assert read_membership(5, inside.root) == expected


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"/etc/hostname": f"/var/lib/docker/containers/{A}/hostname"}, Membership(A)),
        ({"/etc/resolv.conf": f"/docker/containers/{A}/resolv.conf"}, Membership(A)),
        ({"/etc/hosts": f"/containers/storage/overlay-containers/{A}/userdata/hosts"}, Membership(A)),
        ({"/etc/hostname": f"/var/lib/nerdctl/1935db59/containers/default/{A}/hostname"}, Membership(A)),
        ({"/etc/hosts": f"{KUBELET}/etc-hosts"}, Membership(None, POD_UID)),
        ({"/dev/termination-log": f"{KUBELET}/containers/web/0a1b2c3d"}, Membership(None, POD_UID)),
        (
            {
                "/etc/hosts": f"{KUBELET}/etc-hosts",
                "/etc/hostname": f"/var/lib/docker/containers/{B}/hostname",
            },
            Membership(None, POD_UID),
        ),
        ({"/etc/hostname": f"{SANDBOXES}/{B}/hostname"}, Membership()),
        ({"/data": f"/var/lib/docker/containers/{A}/data"}, Membership()),
        ({"/etc/hosts": "/etc/hosts"}, Membership()),
    ],
    ids=[
        "docker",
        "docker, a file system of its own",
        "podman",
        "nerdctl",
        "kubelet's hosts",
        "kubelet's log",
        "docker's sandbox of a pod",
        "containerd's sandbox of a pod",
        "another file",
        "a file of the user's",
    ],
)
def test_where_the_host_cannot_be_seen_mounts_say_where_we_are(inside, sources, expected):
    """A runtime mounts files into a container from a folder that is named after it; a pod's sandbox is no container of ours."""
    mount_files(inside, sources)
    inside.add(5, cgroup="0::/")

    assert read_membership(5, inside.root) == expected


def test_who_is_not_with_us_is_not_in_our_container(inside):
    """What mounts say is true for what is below our root, and for nobody else."""
    mount_files(inside, {"/etc/hostname": f"/var/lib/docker/containers/{A}/hostname"})
    inside.add(5, cgroup="0::/../../system.slice/sshd.service")
    inside.add(6, cgroup=f"0::/../{B}")

    assert read_membership(5, inside.root) == Membership()
    assert read_membership(6, inside.root) == Membership(B)


# --- the cgroup itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("controllers", ["", "memory"], ids=["v2", "v1"])
def test_a_cgroup_is_told_as_proc_has_it(proc, tmp_path, controllers):
    """Of a program that is gone by the number that the kernel side told, of others from /proc itself."""
    proc.mount("cpu", tmp_path / "cpu")
    proc.mount(controllers, tmp_path / "hierarchy")
    (tmp_path / "hierarchy" / "shop").mkdir()
    proc.add(5, cgroup=f"7:name=systemd:/user\n1:{controllers}:/shop")
    index = CgroupIndex(controllers, proc.root)
    inode = (tmp_path / "hierarchy" / "shop").stat().st_ino

    assert index.line(inode, pid=6) == f"1:{controllers}:/shop"
    assert index.line(0, pid=5) == f"1:{controllers}:/shop"
    assert index.line(0, pid=6) is None


def test_who_left_a_cgroup_is_found_out(proc, tmp_path):
    """A process that /proc shows elsewhere than the kernel side did has moved since; who is gone has not."""
    proc.mount("", tmp_path / "hierarchy")
    (tmp_path / "hierarchy" / "shop").mkdir()
    proc.add(5, cgroup="0::/shop")
    index = CgroupIndex("", proc.root)
    root, shop = ((tmp_path / "hierarchy" / name).stat().st_ino for name in (".", "shop"))

    assert index.has_left(root, 5)
    assert not index.has_left(shop, 5)
    assert not index.has_left(root, 6)
