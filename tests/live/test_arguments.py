"""Arguments as what they mean: descriptors, addresses, flags, command lines; and as little as is asked for."""

import sys
from pathlib import Path

import pytest

# Makes one read(2) or write(2) of each sort of descriptor, and says what /proc calls it.
DESCRIPTORS = """
import os, select, socket, sys, tempfile
folder = tempfile.mkdtemp()
deep = os.path.join(folder, *["name%d" % i for i in range(20)])
os.makedirs(deep)
events = select.epoll()
a, b = socket.socketpair()
b.send(b"x" * 9)
r, w = os.pipe()
os.write(w, b"x" * 9)
fifo = os.path.join(folder, "fifo")
os.mkfifo(fifo)
files = [
    os.open("/etc/passwd", os.O_RDONLY),
    os.open("/proc/self/status", os.O_RDONLY),
    os.open("/dev/null", os.O_RDONLY),
    os.open(os.path.join(deep, "file"), os.O_RDWR | os.O_CREAT),
    os.open(os.fsencode(folder) + b"/\\xff", os.O_RDWR | os.O_CREAT),
    os.open(fifo, os.O_RDWR | os.O_NONBLOCK),
    a.fileno(), r, events.fileno(),
]
for file in files:
    try:
        os.read(file, 7)
    except OSError:
        pass
    print(file, os.fsencode(os.readlink("/proc/self/fd/%d" % file)).decode(errors="backslashreplace"))
"""


def described(span) -> str | None:
    """Return what a call's first descriptor is said to be."""
    return span.attributes.get("file.path") or span.attributes.get("syscall.descriptor.fd")


def test_a_descriptor_is_what_proc_says(run_traced):
    """Files on several mounts, deep ones, names that are no UTF-8, sockets, pipes, an epoll: as /proc/PID/fd has them."""
    run = run_traced("/usr/bin/python3", "-c", DESCRIPTORS, options=("--syscalls", "read"))
    expected = dict(line.split(" ", 1) for line in run.stdout.decode().splitlines())
    found = {
        str(span.argument("fd")): described(span) for span in run.calls("read") if span.argument("count") == 7
    }

    assert len(expected) == 9
    assert found == expected


def test_a_descriptor_is_what_it_was_at_the_time(run_traced):
    """The same number, closed and opened again for another file a thousand times, is told apart each time."""
    program = """
import os
for i in range(1000):
    file = os.open("/tmp/otel_sysexit_%d" % (i % 7), os.O_CREAT | os.O_RDWR, 0o600)
    os.write(file, b"%d" % (i % 7))
    os.close(file)
"""
    run = run_traced("/usr/bin/python3", "-c", program, options=("--syscalls", "write,close"))
    for name in ("write", "close"):
        paths = [span.attributes.get("file.path", "") for span in run.calls(name)]
        ours = [path for path in paths if path.startswith("/tmp/otel_sysexit_")]
        assert ours == [f"/tmp/otel_sysexit_{i % 7}" for i in range(1000)]
    for i in range(7):
        Path(f"/tmp/otel_sysexit_{i}").unlink()


def test_a_renamed_file_has_its_new_name(run_traced, tmp_path):
    """A write after a rename is to the new name, though the descriptor is the old one."""
    program = f"""
import os
file = os.open("{tmp_path}/old", os.O_CREAT | os.O_RDWR)
os.write(file, b"1")
os.rename("{tmp_path}/old", "{tmp_path}/new")
os.write(file, b"2")
"""
    run = run_traced("/usr/bin/python3", "-c", program, options=("--syscalls", "write"))

    assert [span.attributes["file.path"] for span in run.calls("write")] == [
        f"{tmp_path}/old",
        f"{tmp_path}/new",
    ]


def test_sockets_that_come_and_go_are_told_apart(run_traced):
    """Hundreds of sockets one after the other, in the same memory of the kernel, have their own inode numbers."""
    program = """
import os, socket
for i in range(300):
    a, b = socket.socketpair()
    a.send(b"x")
    print(os.readlink("/proc/self/fd/%d" % a.fileno()))
    a.close()
    b.close()
"""
    run = run_traced("/usr/bin/python3", "-c", program, options=("--syscalls", "sendto"))

    assert [described(span) for span in run.calls("sendto")] == run.stdout.decode().split()


ADDRESSES = """
import os, socket
server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen()
client = socket.create_connection(server.getsockname()); other, peer = server.accept()
print(server.getsockname()[1], peer[1])
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); six.bind(("::1", 0)); six.sendto(b"x", six.getsockname())
six.recvfrom(9)
print(six.getsockname()[1])
unix = socket.socket(socket.AF_UNIX); unix.bind("\\0otel sysexit")
for path in ("/nonexistent/ö", "\\0nobody"):
    try: socket.socket(socket.AF_UNIX).connect(path)
    except OSError: pass
"""


@pytest.fixture(scope="module")
def addresses(run_traced):
    """Calls with addresses of every family, and the ports that the program knows of."""
    run = run_traced("/usr/bin/python3", "-c", ADDRESSES, options=("--syscalls", "%net"))
    return run, [int(word) for word in run.stdout.decode().split()]


def network(span) -> dict[str, object]:
    """Return a call's attributes of the network."""
    return {key: value for key, value in span.attributes.items() if key.startswith("network.")}


def test_the_other_end_is_the_peer(addresses):
    """Connect and accept say to whom."""
    run, (port, client_port, _) = addresses
    accepted = [span for span in run.calls() if span.name.startswith("accept")]
    ipv4 = {"network.type": "ipv4", "network.peer.address": "127.0.0.1"}

    assert network(run.calls("connect")[0]) == ipv4 | {"network.peer.port": port}
    assert [network(span) for span in accepted] == [ipv4 | {"network.peer.port": client_port}]


# One peer of a long unix path, asked for with room for all of it, for its first letters, and for its family only.
SHORT_ROOM = """
import ctypes, os, socket, tempfile
libc = ctypes.CDLL(None)
path = tempfile.mkdtemp() + "/long-name"
server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect(path)
for room in (110, 8, 2):
    buffer, length = ctypes.create_string_buffer(b"?" * 128), ctypes.c_uint32(room)
    libc.getpeername(client.fileno(), buffer, ctypes.byref(length))
    assert length.value > room or room == 110
print(path)
"""


def test_what_lies_behind_a_short_buffer_is_not_shown(run_traced):
    """Of an address that did not fit there is what was written: the program's own bytes behind it stay its own."""
    run = run_traced("/usr/bin/python3", "-c", SHORT_ROOM, options=("--syscalls", "getpeername"))
    path = run.stdout.decode().strip()

    found = [
        span.attributes.get("network.peer.address") for span in run.calls("getpeername")[:3]
    ]  # Python makes more
    assert found == [path, path[:6], None]


def test_datagrams_have_peers(addresses):
    """Sendto and recvfrom over IPv6 say to and from whom."""
    run, (_, _, port) = addresses
    expected = {"network.type": "ipv6", "network.peer.address": "::1", "network.peer.port": port}

    assert network(run.calls("sendto")[-1]) == network(run.calls("recvfrom")[-1]) == expected


def test_the_own_end_is_local(addresses):
    """Bind says to which address of its own; one of an abstract unix socket begins with @."""
    run, _ = addresses
    bound = [network(span) for span in run.calls("bind")]

    assert bound[0] == {"network.type": "ipv4", "network.local.address": "127.0.0.1", "network.local.port": 0}
    assert bound[-1] == {"network.transport": "unix", "network.local.address": "@otel sysexit"}


def test_unix_sockets_have_paths(addresses):
    """A path that is text and an abstract name, both of failed calls."""
    run, _ = addresses
    found = [network(span)["network.peer.address"] for span in run.calls("connect") if span.errno]

    assert found == ["/nonexistent/ö", "@nobody"]


@pytest.mark.parametrize(("args", "has_numbers"), [("none", False), ("numbers", True)])
def test_less_can_be_asked_for(run_traced, args, has_numbers):
    """Without meanings there is no path, address or flag in words; without arguments, no number either."""
    run = run_traced("/usr/bin/python3", "-c", ADDRESSES, options=("--args", args))
    keys = {key for span in run.calls() for key in span.attributes}
    opened = run.calls("openat")[0]

    assert not [key for key in keys if key.startswith(("network.", "syscall.descriptor.", "file."))]
    assert ("syscall.argument.flags" in opened.attributes) == has_numbers
    assert opened.attributes.get("syscall.argument.dfd") == (-100 if has_numbers else None)


def resource_of(run) -> dict[str, object]:
    """Return the Resource of the command."""
    return run.processes()[0].resource


def test_the_command_line_is_there_if_asked_for(run_traced):
    """--command-args gives argv as it was, empty and odd arguments included."""
    argv = ["/bin/echo", "", "a b", "ü", "last"]
    run = run_traced(*argv, options=("--command-args",))

    assert resource_of(run)["process.command_args"] == argv


def test_no_command_line_unless_asked_for(run_traced):
    """It may hold secrets: by default it is nowhere."""
    run = run_traced("/bin/echo", "secret")

    assert "process.command_args" not in resource_of(run)
    assert "secret" not in str([span.attributes for span in run.spans])


def test_a_long_command_line_is_cut_and_says_so(run_traced):
    """What exceeds the limit is cut off, and dots say so."""
    run = run_traced("/bin/echo", "x" * 100, "y" * 500, options=("--command-args",))
    args = resource_of(run)["process.command_args"]

    assert args[:2] == ["/bin/echo", "x" * 100]
    assert args[2].endswith("y...")
    assert len("".join(args)) < 300


@pytest.mark.parametrize("limit", [128, 4096])
def test_the_limit_of_strings_can_be_chosen(run_traced, limit):
    """As many bytes of a path are kept as was said, and only a longer one is marked."""
    path = "/" + "x/" * 2047
    for length in (limit, limit + 1):
        run = run_traced("cat", path[: min(length, 4095)], options=("--string-limit", str(limit)))
        (span,) = [span for span in run.calls("openat") if span.attributes["file.path"].startswith("/x/")]
        assert span.attributes["file.path"] == path[: min(length, 4095)][:limit]
        assert span.attributes.get("syscall.truncated", False) == (length > limit and limit < 4095)


def test_flags_are_named(run_traced):
    """Bits and choices are written as in a program's source."""
    program = "import mmap, os, signal; mmap.mmap(-1, 4096).close(); os.kill(os.getpid(), signal.SIGWINCH)"
    run = run_traced(sys.executable, "-c", program)
    mapped = [span for span in run.calls("mmap") if span.argument("len") == 4096]

    assert "MAP_SHARED|MAP_ANONYMOUS" in {span.argument("flags") for span in mapped}
    assert run.calls("kill")[0].argument("sig") == "SIGWINCH"
