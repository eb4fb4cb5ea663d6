"""What the user's selectors mean: texts → values, values → the running system, and what the kernel's side gets."""

import os
import pwd

import pytest
from fake_proc import PF_KTHREAD, FakeProc

from otel_sysexit.cgroups import Cgroup
from otel_sysexit.errors import UsageError
from otel_sysexit.kernel.records import Selector
from otel_sysexit.targets import (
    Criteria,
    Selectors,
    Targets,
    glob_matches,
    parse_cgroup,
    parse_comm,
    parse_container,
    parse_exe,
    parse_pid,
    parse_tid,
    parse_uid,
    resolve,
)

CONTAINER = "7be92808767a667f35c8505cbf40d14e931ef6db5b0210329cf193b15ba9d605"


@pytest.fixture
def proc(tmp_path):
    """Return a fake /proc with a process of two threads and a kernel thread."""
    proc = FakeProc(tmp_path / "proc")
    proc.add(100)
    proc.add(100, 101)
    proc.add(2, flags=PF_KTHREAD)
    return proc


def texts(*names: str) -> list[bytes]:
    """Return file names as the kernel has them."""
    return [os.fsencode(name) for name in names]


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_pid, "1", 1),
        (parse_tid, "4194303", 4194303),
        (parse_comm, "nginx", b"nginx"),
        (parse_comm, "a name of 16 bytes", b"a name of 16 by"),
        (parse_comm, "ééééééééé", "ééééééééé".encode()[:15]),
        (parse_comm, "\udcff", b"\xff"),
        (parse_exe, "/usr/sbin/nginx", b"/usr/sbin/nginx"),
        (parse_exe, "*/python3.??", b"*/python3.??"),
        (parse_exe, "***/a**", b"*/a*"),
        (parse_exe, r"/a\**", rb"/a\**"),
        (parse_exe, r"/a\\**", rb"/a\\*"),
        (parse_exe, r"/\[", rb"/\["),
        (parse_exe, "/\udcff", b"/\xff"),
        (parse_exe, "/" + 254 * "a", b"/" + 254 * b"a"),
        (parse_uid, "0", 0),
        (parse_uid, "4294967294", 4294967294),
        (parse_uid, pwd.getpwuid(0).pw_name, 0),
        (parse_cgroup, "/system.slice/nginx.service", "/system.slice/nginx.service"),
        (parse_cgroup, "system.slice//x/", "/system.slice/x"),
        (parse_cgroup, "//a/./b.", "/a/b."),
        (parse_cgroup, "/", "/"),
        (parse_container, CONTAINER, CONTAINER),
        (parse_container, "7BE9", "7be9"),
        (parse_container, f"containerd://{CONTAINER}", CONTAINER),
        (parse_container, f"{CONTAINER[:32]}-25", f"{CONTAINER[:32]}-25"),
    ],
)
def test_a_text_is_read(parse, text, value):
    """Each kind of selector is read as the kernel will compare it."""
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (parse_pid, "0", "'0' is no process id"),
        (parse_tid, "4194304", "'4194304' is no thread id"),
        (parse_tid, "x", "'x' is no thread id"),
        (parse_comm, "", "empty"),
        (parse_exe, "", "empty"),
        (parse_exe, "nginx", "'nginx' is no absolute path: write '*/nginx'"),
        (parse_exe, "./nginx", "write '*/nginx'"),
        (parse_exe, "ngin*", "write '*/ngin*'"),
        (
            parse_exe,
            "/bin/[ab]",
            r"[] is not supported; write ? for any character, \[ for the bracket itself",
        ),
        (parse_exe, "/bin/a\\", "quotes nothing"),
        (parse_exe, "/" + 255 * "a", "at most 255 bytes"),
        (parse_uid, "4294967295", "no user id"),
        (parse_uid, "no such user", "there is no user 'no such user'"),
        (parse_uid, "", "there is no user ''"),
        (parse_cgroup, "", "no path of a cgroup"),
        (parse_cgroup, "/a/../b", "no path of a cgroup"),
        (parse_container, "web", "'web' is no container id"),
        (parse_container, "7be", "too short for a container id: at least 4"),
        (parse_container, "7" * 65, "no container id"),
    ],
)
def test_a_wrong_text_is_refused(parse, text, words):
    """What can match nothing is refused in one line, with what to write where that can be told."""
    with pytest.raises(ValueError) as caught:
        parse(text)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the running system -----------------------------------------------------------------------------------------------


def test_selectors_become_criteria(proc):
    """What needs no look at the system is taken as it is, each value once."""
    targets = resolve(
        Selectors(comms=[b"a", b"b", b"a"], uids=[3]),
        Selectors(exes=[b"/x*"]),
        follows_children=False,
        proc=proc.root,
    )

    assert targets == Targets(
        chosen=Criteria(comms=frozenset([b"a", b"b"]), uids=frozenset([3])),
        excluded=Criteria(exe_globs=(b"/x*",)),
        follows_children=False,
    )


def test_a_link_to_an_executable_is_followed(proc, tmp_path):
    """The kernel knows executables by their real paths: where a link leads is chosen, too, its wildcards quoted."""
    (tmp_path / "real*").touch()
    (tmp_path / "link").symlink_to("real*")
    targets = resolve(Selectors(exes=texts(f"{tmp_path}/link")), Selectors(), proc=proc.root)

    assert targets.chosen.exe_globs == tuple(texts(f"{tmp_path}/link", rf"{tmp_path}/real\*"))


def test_a_glob_is_not_followed(proc, tmp_path):
    """A pattern stays what it is, and so does a path that does not exist here: it may exist in a container."""
    exes = texts(f"{tmp_path}/*", "/no/such/file")

    assert resolve(Selectors(exes=exes), Selectors(), proc=proc.root).chosen.exe_globs == tuple(exes)


def test_a_command_needs_no_selectors(proc):
    """With a command to run nothing need be chosen; exclusions are allowed."""
    targets = resolve(Selectors(), Selectors(uids=[3]), has_command=True, proc=proc.root)

    assert targets.chosen.is_empty()
    assert not targets.is_all


@pytest.fixture
def hybrid(proc, tmp_path):
    """Return the fake /proc of a hybrid host: v2 without controllers, and the v1 hierarchies of memory and pids."""
    for controllers, name in (("", "unified"), ("memory", "memory"), ("pids", "pids")):
        proc.mount(controllers, tmp_path / name)
    for path in ("unified/web", "memory/web", "memory/web/one", f"memory/docker/{CONTAINER}", "pids/batch"):
        (tmp_path / path).mkdir(parents=True)
    proc.add(200, cgroup=f"3:memory:/docker/{CONTAINER}\n0::/")
    return proc


def inode(path) -> int:
    """Return a directory's inode number."""
    return path.stat().st_ino


def test_cgroups_are_looked_up_in_v2_first(hybrid, tmp_path):
    """A path that exists in several hierarchies is taken from v2."""
    targets = resolve(Selectors(cgroups=["/web"]), Selectors(), proc=hybrid.root)

    assert targets.chosen.cgroups == {Cgroup("", "/web", inode(tmp_path / "unified" / "web"))}


def test_cgroups_and_containers_are_looked_up_in_one_hierarchy(hybrid, tmp_path):
    """What can mean several things means what is in the same hierarchy as the rest."""
    targets = resolve(Selectors(cgroups=["/web"]), Selectors(containers=[CONTAINER[:8]]), proc=hybrid.root)
    container = tmp_path / "memory" / "docker" / CONTAINER

    assert targets.chosen.cgroups == {Cgroup("memory", "/web", inode(tmp_path / "memory" / "web"))}
    assert targets.excluded.cgroups == {Cgroup("memory", f"/docker/{CONTAINER}", inode(container))}


def test_a_container_and_a_cgroup_mean_what_is_in_both(hybrid):
    """Different kinds must both hold, also these two, which are one to the kernel: the inner one stands for both."""
    targets = resolve(
        Selectors(cgroups=["/docker", "/web"], containers=[CONTAINER]), Selectors(), proc=hybrid.root
    )

    assert {cgroup.path for cgroup in targets.chosen.cgroups} == {f"/docker/{CONTAINER}"}


def test_cgroups_of_the_excluded_side_are_all_left_out(hybrid):
    """Any exclusion is enough, so cgroups and containers are added up there."""
    targets = resolve(
        Selectors(uids=[0]), Selectors(cgroups=["/web"], containers=[CONTAINER]), proc=hybrid.root
    )

    assert {cgroup.path for cgroup in targets.excluded.cgroups} == {"/web", f"/docker/{CONTAINER}"}


@pytest.mark.parametrize(
    ("chosen", "excluded", "options", "words"),
    [
        ({}, {}, {}, "say what to attach to: --all or some of --pid, --tid, --comm, --exe, --uid, --cgroup, --container"),
        ({}, {"uids": [1]}, {}, "say what to attach to"),
        ({"pids": [100], "uids": [0]}, {}, {"is_all": True}, "--all takes everything: leave out --pid, --uid"),
        ({}, {}, {"is_all": True, "follows_children": False}, "leave out --no-follow"),
        ({"pids": [77]}, {}, {}, "there is no process 77"),
        ({"pids": [101]}, {}, {}, "101 is a thread of process 100: write --tid 101 or --pid 100"),
        ({"pids": [100]}, {}, {"own_pids": [100]}, "100 is this program itself"),
        ({"pids": [2]}, {}, {}, "2 is a thread of the kernel itself"),
        ({"tids": [77]}, {}, {}, "there is no thread 77"),
        ({"tids": [101]}, {}, {"own_pids": [100]}, "101 is this program itself"),
        ({"tids": [101], "pids": [200]}, {}, {}, "thread 101 belongs to process 100, which is not among --pid"),
        ({"comms": [b"a"]}, {"comms": [b"a", b"b"]}, {}, "every --comm is left out by --not-comm"),
        ({"exes": [b"/a"]}, {"exes": [b"/a"]}, {}, "every --exe is left out by --not-exe"),
        ({"cgroups": ["/nope"]}, {}, {}, "there is no cgroup '/nope'"),
        ({"containers": ["feed"]}, {}, {}, "there is no container 'feed': running are 7be92808767a"),
        ({"uids": [1]}, {"containers": ["feed"]}, {}, "there is no container 'feed'"),
        ({"cgroups": ["/web/one", "/batch"]}, {}, {}, "in different hierarchies: '/web/one' (memory), '/batch' (pids)"),
        ({"cgroups": ["/web"], "containers": ["7be9"]}, {}, {}, "no --container is in a --cgroup"),
        ({"cgroups": ["/web/one"]}, {"cgroups": ["/web"]}, {}, "all chosen cgroups and containers are left out"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(hybrid, chosen, excluded, options, words):
    """Contradictions and what does not exist are one line, and a mistake of the user's."""
    with pytest.raises(UsageError) as caught:
        resolve(Selectors(**chosen), Selectors(**excluded), **options, proc=hybrid.root)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_some_of_the_chosen_may_be_left_out(proc):
    """An exclusion that leaves something over is no contradiction."""
    targets = resolve(Selectors(comms=[b"a", b"b"]), Selectors(comms=[b"a"]), proc=proc.root)

    assert targets.excluded.comms == {b"a"}


def test_a_process_that_is_gone_may_be_left_out(proc):
    """What does not exist any more is easily left out: no error, unlike an attach to it."""
    resolve(Selectors(uids=[0]), Selectors(pids=[77], tids=[78]), proc=proc.root)


# --- the kernel's side ------------------------------------------------------------------------------------------------

EVERYTHING = Criteria(
    pids=frozenset([1]),
    tids=frozenset([2]),
    comms=frozenset([b"c"]),
    exe_globs=(b"/a", b"/b"),
    uids=frozenset([3]),
    cgroups=frozenset([Cgroup("blkio", "/", 4)]),
)


@pytest.mark.parametrize(
    ("targets", "flags"),
    [
        (Targets(), []),
        (Targets(is_all=True), ["-DSELECT_ALL"]),
        (Targets(follows_children=False), ["-DNO_FOLLOW"]),
        (Targets(chosen=Criteria(pids=frozenset([1, 2]))), ["-DSELECT_PID"]),
        (Targets(chosen=Criteria(cgroups=frozenset([Cgroup("", "/a", 1)]))), ["-DSELECT_CGROUP"]),
        (
            Targets(excluded=Criteria(cgroups=frozenset([Cgroup("cpu,cpuacct", "/a", 1)]))),
            ["-DEXCLUDE_CGROUP"],
        ),
        (
            Targets(EVERYTHING, EVERYTHING),
            [
                *(f"-DSELECT_{kind}" for kind in ("PID", "TID", "UID", "COMM", "CGROUP")),
                *(f"-DEXCLUDE_{kind}" for kind in ("PID", "TID", "UID", "COMM", "CGROUP")),
                "-DEXE_GLOBS=2",
                "-DEXE_GLOBS_EXCLUDED=2",
            ],
        ),
    ],
)
def test_macros_name_what_is_asked_for(targets, flags):
    """What is not asked for is not compiled."""
    assert targets.cflags() == flags


def test_selection_keys_have_kind_and_value():
    """Keys have 24 bytes: the kind, 8 more for exclusions; then a number as u64, or a name, padded with zeros."""
    targets = Targets(
        chosen=Criteria(pids=frozenset([0x010203]), comms=frozenset([b"fifteen bytes.."])),
        excluded=Criteria(cgroups=frozenset([Cgroup("", "/", 0x0102030405060708)]), uids=frozenset([7])),
    )

    assert targets.selection_keys() == [
        int(Selector.PID).to_bytes(8, "little") + bytes([3, 2, 1]) + bytes(13),
        int(Selector.COMM).to_bytes(8, "little") + b"fifteen bytes..\0",
        (8 + Selector.UID).to_bytes(8, "little") + bytes([7]) + bytes(15),
        (8 + Selector.CGROUP).to_bytes(8, "little") + bytes([8, 7, 6, 5, 4, 3, 2, 1]) + bytes(8),
    ]


def test_globs_are_in_the_kernels_order():
    """The chosen globs come before the excluded ones, each side in the user's order."""
    targets = Targets(Criteria(exe_globs=(b"/b", b"/a")), Criteria(exe_globs=(b"/c",)))

    assert targets.exe_globs() == [b"/b", b"/a", b"/c"]


@pytest.mark.parametrize(
    ("glob", "path", "is_match"),
    [
        (rb"*/nginx", b"/usr/sbin/nginx", True),
        (rb"/usr/*", b"/usr/sbin/nginx", True),
        (rb"/usr/*", b"/usr", False),
        (rb"/a?c", b"/a/c", True),
        (rb"/a\*", b"/a*", True),
        (rb"/a\*", b"/ab", False),
        (rb"/\[", b"/[", True),
        (rb"/\a\\", b"/a\\", True),
        (b"*\xff", b"/\n\xff", True),
    ],
)
def test_a_glob_matches_a_whole_path(glob, path, is_match):
    """A star stands for slashes, too; what is quoted stands for itself."""
    assert glob_matches(glob, path) == is_match
