"""What the loader is asked for: choices become macros, and maps get the contents that the kernel side looks up."""

import mmap

import numpy as np
import pytest

from otel_sysexit.kernel import records
from otel_sysexit.kernel.request import (
    PENDING_OTHERS,
    PENDING_OTHERS_ALL,
    PENDING_PLACES,
    Request,
    Selection,
    Thresholds,
)

SIZE = records.ABI_COUNT * records.NR_LIMIT
MARKED = np.zeros(4096, np.uint8)
MARKED[[0, 2, 4095]] = 1
OTHERS = np.zeros(4096, np.uint8)
OTHERS[[2, 13]] = 1


def table_with(dtype: type, **entries: int) -> np.ndarray:
    """Return a table of calls with some entries, by `nr<number>` of the first ABI."""
    table = np.zeros(SIZE, dtype)
    for name, value in entries.items():
        table[int(name.removeprefix("nr"))] = value
    return table


def make_request(**choices: object) -> Request:
    """Return a request; what is not given is not asked for."""
    return Request(**({"calls_bytes": 1 << 20, "syscall_table": np.zeros(SIZE, np.uint32)} | choices))


def macros(request: Request) -> dict[str, str]:
    """Return the values of a request's macros by name."""
    flags = request.cflags()
    found = dict(flag.removeprefix("-D").partition("=")[::2] for flag in flags)

    assert all(flag.startswith("-D") for flag in flags)
    assert len(found) == len(flags)
    return found


def content(request: Request, name: str, key_size: int = 4) -> dict[bytes, bytes]:
    """Return what a map is filled with."""
    keys, values, count = request.contents()[name]
    size = len(values) // count

    assert (len(keys), len(values)) == (key_size * count, size * count)
    return {
        keys[at * key_size : (at + 1) * key_size]: values[at * size : (at + 1) * size] for at in range(count)
    }


def numbers(request: Request, name: str) -> dict[int, int]:
    """Return the elements of an array map by index."""
    return {
        int.from_bytes(key, "little"): int.from_bytes(value, "little")
        for key, value in content(request, name).items()
    }


# --- macros -----------------------------------------------------------------------------------------------------------


def test_what_is_not_asked_for_is_not_compiled():
    """Without choices there are sizes and the kind of arguments, and nothing else."""
    assert macros(make_request()) == {
        "PENDING_PLACES": str(PENDING_PLACES),
        "STRING_LIMIT": "256",
        "ARGS": "2",
    }


ALONE = Thresholds(5)
BY_CALL = Thresholds(5, table_with(np.uint64, nr0=9))


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"has_set": True}, {"SYSCALL_SET": "", "WANT_UNKNOWN": "1"}),
        ({"has_set": True, "wants_unknown": False}, {"SYSCALL_SET": "", "WANT_UNKNOWN": "0"}),
        ({"args": 0}, {"ARGS": "0"}),
        ({"cgroup_subsystem": ""}, {"CGROUPS": ""}),
        ({"cgroup_subsystem": "io"}, {"CGROUPS": "", "CGROUP_SUBSYSTEM": "io"}),
        ({"has_command_args": True}, {"COMMAND_ARGS": ""}),
        ({"string_limit": 4096}, {"STRING_LIMIT": "4096"}),
        ({"errors_only": True}, {"ERRORS_ONLY": ""}),
        ({"wanted_errnos": MARKED}, {"ERRNO_SET": ""}),
        ({"min_duration": ALONE}, {"MIN_DURATION_NS": "5ULL"}),
        ({"min_duration": BY_CALL}, {"MIN_DURATION_NS": "5ULL", "MIN_DURATION_BY_CALL": ""}),
        ({"sample_threshold": 2**32 - 1}, {"SAMPLE_THRESHOLD": "4294967295U"}),
        ({"has_max_rate": True}, {"MAX_RATE": ""}),
        ({"kept_errnos": MARKED}, {"KEEP_ERRORS": ""}),
        ({"reports_stuck": True}, {"REPORT_STUCK": ""}),
        ({"keep_slow": ALONE}, {"KEEP_SLOW_NS": "5ULL"}),
        ({"keep_slow": BY_CALL}, {"KEEP_SLOW_NS": "5ULL", "KEEP_SLOW_BY_CALL": ""}),
        ({"selection": Selection(["-DSELECT_PID", "-DEXE_GLOBS=2"])}, {"SELECT_PID": "", "EXE_GLOBS": "2"}),
        (
            {"selection": Selection(["-DSELECT_ALL"])},
            {"SELECT_ALL": ""},
        ),
    ],
)
def test_a_choice_is_a_macro(choices, expected):
    """Each choice adds its macros, with their values, and changes no other."""
    assert macros(make_request(**choices)) == macros(make_request()) | expected


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls_bytes", [4096, 8192, 1 << 20, 1 << 30])
def test_rings_have_sizes_that_the_kernel_takes(calls_bytes):
    """Every ring is a power of two of bytes, at least a page."""
    sizes = make_request(calls_bytes=calls_bytes).sizes()
    rings = [sizes[name] for name in ("calls", "strings", "tasks", "exec_strings", "files")]

    assert rings[:2] == [calls_bytes, max(calls_bytes // 2, mmap.PAGESIZE)]
    assert [size for size in rings if size < mmap.PAGESIZE or size & (size - 1)] == []


@pytest.mark.parametrize(
    ("cpus", "rings_max", "rings"),
    [
        (1, 0, 1),
        (16, 0, 1),
        (17, 0, 2),
        (64, 0, 4),
        (1024, 0, 8),
        (2, 2, 2),
        (2, 8, 2),
        (64, 1, 1),
        (10, 4, 4),
    ],
)
def test_cpus_share_rings_in_groups(cpus, rings_max, rings):
    """One for 16 CPUs, or as many as are wanted, but none without a CPU; each CPU's group has one."""
    request = make_request(cpus=cpus, calls_rings_max=rings_max, calls_bytes=1 << 20)
    names = request.calls_rings

    assert len(names) == rings
    assert (cpus - 1) // request.cpus_a_ring == rings - 1
    assert [request.sizes()[name] for name in names] == [request.calls_ring_bytes] * rings
    assert (1 << 20) <= request.calls_ring_bytes * rings < 2 << 20


def test_a_single_ring_is_no_macro():
    """What is not asked for costs nothing."""
    assert macros(make_request(cpus=16)) == macros(make_request())
    assert macros(make_request(cpus=17)) == macros(make_request()) | {"CPUS_A_RING": "9"}


def test_with_all_more_threads_have_slots():
    """There is room for those whose place is taken: more when every thread of the host is a target."""
    for macros_, room in ((), PENDING_OTHERS), (("-DSELECT_ALL",), PENDING_OTHERS_ALL):
        assert make_request(selection=Selection(macros_)).sizes()["pending_others"] == room


def test_sizes_are_no_macros():
    """Programs that were compiled once serve rings of any size."""
    assert macros(make_request(calls_bytes=4096)) == macros(make_request(calls_bytes=1 << 30))


# --- maps -------------------------------------------------------------------------------------------------------------


def test_maps_that_stay_empty_are_not_filled():
    """The kernel's maps begin with zeros: nothing asked for is nothing to write."""
    assert make_request().contents() == {}


def test_the_table_of_calls_is_filled_where_it_says_something():
    """Entries that are not 0 are written, each to its index."""
    request = make_request(syscall_table=table_with(np.uint32, nr0=1 << 31, nr257=0x8000_0052))

    assert numbers(request, "syscall_table") == {0: 1 << 31, 257: 0x8000_0052}


def test_the_agent_is_told_at_run_time():
    """Which process is ours is no macro: programs that were compiled once serve every agent."""
    assert numbers(make_request(own_tgid=4711), "own_tgid") == {0: 4711}
    assert macros(make_request(own_tgid=4711)) == macros(make_request())


def test_errnos_wanted_and_kept_share_a_map():
    """An errno has a bit for each of the two; 0 stands for calls that did not fail."""
    wanted, kept = records.ERRNO_IS_WANTED, records.ERRNO_IS_KEPT

    assert numbers(make_request(wanted_errnos=MARKED), "errnos") == {0: wanted, 2: wanted, 4095: wanted}
    assert numbers(make_request(kept_errnos=OTHERS), "errnos") == {2: kept, 13: kept}
    assert numbers(make_request(wanted_errnos=MARKED, kept_errnos=OTHERS), "errnos") == {
        0: wanted,
        2: wanted | kept,
        13: kept,
        4095: wanted,
    }


def test_durations_of_calls_have_maps_where_there_are_exceptions():
    """A duration for all is a macro alone; the map is there, and filled, if some calls have their own."""
    table = table_with(np.uint64, nr0=10**7, nr1=2**63)

    assert numbers(make_request(min_duration=Thresholds(1, table)), "min_durations") == {0: 10**7, 1: 2**63}
    assert numbers(make_request(keep_slow=Thresholds(1, table)), "keep_slow") == {0: 10**7, 1: 2**63}
    assert make_request(min_duration=ALONE, keep_slow=ALONE).contents() == {}


def test_keys_of_the_selection_are_there():
    """What threads are chosen or left out by is found in the map, whatever the value."""
    keys = [bytes([kind]) + bytes(23) for kind in (0, 4, 8)]
    request = make_request(selection=Selection(keys=keys))

    assert set(content(request, "selection", records.SELECTOR_KEY.itemsize)) == set(keys)
    assert all(content(request, "selection", records.SELECTOR_KEY.itemsize).values())


def test_globs_are_padded_and_in_order():
    """Patterns lie one behind the other, each with a zero behind its last byte, the longest too."""
    globs = [b"/bin/*", b"x" * records.GLOB_LENGTH_MAX, b"/c"]
    found = content(make_request(selection=Selection(globs=globs)), "exe_globs")

    assert [int.from_bytes(index, "little") for index in found] == [0, 1, 2]
    assert [glob.rstrip(b"\0") for glob in found.values()] == globs
    assert {len(glob) for glob in found.values()} == {records.GLOB_SIZE}


def test_numbers_that_no_abi_wants_are_told_at_once():
    """With a set, what is wanted nowhere is marked: a number counts as wanted if any ABI wants it, or has to look at it."""
    table = np.zeros((records.ABI_COUNT, records.NR_LIMIT), np.uint32)
    table[0, 5] = records.Entry.IS_WANTED
    table[1, 7] = records.Entry.IS_WANTED | 3
    table[2, 9] = records.Entry.IS_BIRTH
    table[3, 11] = 3  # a path, but not wanted
    unwanted = numbers(make_request(has_set=True, syscall_table=table.reshape(-1)), "unwanted_numbers")

    assert set(range(records.NR_LIMIT)) - set(unwanted) == {5, 7, 9}
    assert "unwanted_numbers" not in make_request(syscall_table=table.reshape(-1)).contents()
