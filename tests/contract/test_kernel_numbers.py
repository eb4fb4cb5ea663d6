"""Numbers of the kernel's interface that Python code spells out, as the host's headers have them."""

import platform
import shutil
import subprocess

import pytest

from otel_sysexit.kernel import bpf, maps, objects, probes, tracepoints

MACHINE = platform.machine()
# C expression -> what Python has for it, on this machine.
NUMBERS = {
    "__NR_bpf": bpf.NUMBER[MACHINE],
    **{f"BPF_{command.name}": int(command) for command in bpf.Command},
    "__NR_membarrier": maps._MEMBARRIER[MACHINE],
    "MEMBARRIER_CMD_GLOBAL": maps._MEMBARRIER_CMD_GLOBAL,
    "BPF_NOEXIST": maps._NOEXIST,
    "BPF_MAP_TYPE_ARRAY": probes._MAP_TYPE_ARRAY,
    "BPF_MAP_TYPE_RINGBUF": probes._MAP_TYPE_RINGBUF,
    "__NR_perf_event_open": tracepoints._PERF_EVENT_OPEN[MACHINE],
    "PERF_TYPE_TRACEPOINT": tracepoints._PERF_TYPE_TRACEPOINT,
    "PERF_ATTR_SIZE_VER0": tracepoints._PERF_ATTR_SIZE_VER0,
    "PERF_FLAG_FD_CLOEXEC": tracepoints._PERF_FLAG_FD_CLOEXEC,
    "PERF_EVENT_IOC_SET_BPF": tracepoints._PERF_EVENT_IOC_SET_BPF,
    "CLONE_NEWNS": tracepoints._CLONE_NEWNS,
    "MS_REC": tracepoints._MS_REC,
    "MS_PRIVATE": tracepoints._MS_PRIVATE,
    "BPF_PROG_TYPE_RAW_TRACEPOINT": bpf.RAW_TRACEPOINT,
    "BPF_PROG_TYPE_TRACEPOINT": bpf.TRACEPOINT,
    "BPF_OBJ_NAME_LEN": bpf._NAME_BYTES_MAX + 1,
    "sizeof(struct bpf_insn)": objects.INSTRUCTION_SIZE,
    "BPF_LD|BPF_DW|BPF_IMM": objects.LOAD_64_BITS,
    "BPF_PSEUDO_MAP_FD": objects.PSEUDO_MAP_FD,
    "BPF_FUNC_map_update_elem": 2,
    "BPF_FUNC_get_current_task_btf": probes._CURRENT_TASK[3],
    "offsetof(union bpf_attr,map_fd)": maps._ElementAttributes.map_fd.offset,
    "offsetof(union bpf_attr,key)": maps._ElementAttributes.key.offset,
    "offsetof(union bpf_attr,value)": maps._ElementAttributes.value.offset,
    "offsetof(union bpf_attr,flags)": maps._ElementAttributes.flags.offset,
}
HEADERS = (
    "stddef.h",
    "stdio.h",
    "linux/bpf.h",
    "linux/membarrier.h",
    "linux/perf_event.h",
    "linux/sched.h",
    "sys/ioctl.h",
    "sys/mount.h",
    "sys/syscall.h",
)


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The numbers as a C program prints them."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("numbers")
    source, program = folder / "numbers.c", folder / "numbers"
    lines = [f"#include <{header}>" for header in HEADERS]
    lines += ["int main(void) {", *(f'printf("%d\\n", (int)({name}));' for name in NUMBERS), "return 0; }"]
    source.write_text("\n".join(lines))
    subprocess.run([compiler, "-Wall", "-Werror", "-o", program, source], check=True)
    answer = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return dict(zip(NUMBERS, map(int, answer.split()), strict=True))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_the_kernels(in_c, name):
    """Numbers of calls, commands and offsets are those of the host's headers."""
    assert NUMBERS[name] == in_c[name]
