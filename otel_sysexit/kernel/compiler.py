"""
The child process that compiles the BPF programs; bcc and its compiler (about 120 MB) live and die here.

In: one JSON object on standard input, with the folder of the sources, macros, and the programs to make. Out, on standard
output: one JSON object, with an `Object` and the files of the compiler that made it, or with an error.

It runs under the Python that has bcc, which may be another one than the agent's: it imports the standard library, bcc, objects.py and
probes.py only.
"""

import ctypes
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

from otel_sysexit.kernel.objects import MapSpecification, Object, Program, take_out_maps
from otel_sysexit.kernel.probes import LoadError

# bcc sees maps and programs in one text only: these are joined, in this order.
SOURCES: Final = tuple(
    f"{name}.bpf.c"
    for name in ("base", "slots", "strings", "files", "spans", "selection", "sampling", "calls", "lifecycle")
)
_LIBRARIES: Final = re.compile(r"/lib(bcc|clang|LLVM)[^/]*$")

INSTALL_BCC: Final = (
    "install the distribution's package (Debian, Ubuntu: python3-bpfcc; Fedora, Alpine, Arch: python3-bcc, py3-bcc, "
    "python-bcc), not the unrelated project of that name on PyPI"
)


def import_bcc() -> Any:
    """
    Return the module `bcc`.

    Raises:
        LoadError: it is missing ("no-bcc"), or is the unrelated PyPI project ("wrong-bcc").
    """
    try:
        import bcc  # noqa: PLC0415 (only here, and late: the error is ours to word)
    except ImportError as error:
        if _is_foreign(error):
            raise LoadError("wrong-bcc", _wrong_bcc(error.path)) from error
        raise LoadError("no-bcc", f"{sys.executable} has no bcc ({error}): {INSTALL_BCC}") from error
    except OSError as error:  # the compiler's shared library is missing
        raise LoadError("no-bcc", f"{sys.executable} cannot load bcc ({error}): {INSTALL_BCC}") from error
    if not hasattr(bcc, "BPF"):
        raise LoadError("wrong-bcc", _wrong_bcc(getattr(bcc, "__file__", None)))
    return bcc


def _is_foreign(error: ImportError) -> bool:
    """Whether a module called bcc is there, but failed on something that the real one does not use."""
    return error.name is not None and error.name.partition(".")[0] not in ("bcc", "libbcc")


def _wrong_bcc(path: str | None) -> str:
    return f"the module bcc at {path or 'an unknown place'} is not the BPF compiler's: uninstall it, and {INSTALL_BCC}"


def read_source(bpf_dir: str) -> str:
    """Return the text of all programs."""
    return "".join(f'#line 1 "{name}"\n{Path(bpf_dir, name).read_text()}' for name in SOURCES)


def compile_programs(bcc: Any, bpf_dir: str, macros: list[str], programs: dict[str, bool]) -> Object:
    """
    Compile what is in *bpf_dir*.

    Args:
        bcc: The module.
        bpf_dir: Folder of the sources.
        macros: As options of the compiler.
        programs: Whether perf calls it, by tracepoint.

    Raises:
        LoadError: "load": it does not compile; why is on standard error.
    """
    os.environ["BCC_KERNEL_SOURCE"] = bpf_dir
    # Of a macro that is given twice the last one counts. Without debug information: nothing reads it, and it costs 30 ms.
    cflags = ["-g0", "-Wno-macro-redefined", f"-I{bpf_dir}", *macros]
    try:
        module = bcc.BPF(text=read_source(bpf_dir).encode(), cflags=cflags)
        fds = _map_fds(bcc.lib, module.module)
        names = {fd: name for name, fd in fds.items()}
        made = tuple(
            Program(
                tracepoint, is_event, *take_out_maps(module.dump_func(f"on_{tracepoint}".encode()), names)
            )
            for tracepoint, is_event in programs.items()
        )
        licence = bcc.lib.bpf_module_license(module.module).decode()
    except Exception as error:  # bcc raises Exception itself
        raise LoadError("load", f"the BPF programs do not compile: {error}") from error
    found = Object(licence, tuple(_specification(name, fd) for name, fd in fds.items()), made)
    module.cleanup()
    return found


def _map_fds(library: Any, module: int) -> dict[str, int]:
    """Return the descriptors of the maps that bcc has created, by name; src/cc/bcc_common.h, which bcc's Python knows in part."""
    library.bpf_num_tables.restype, library.bpf_num_tables.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    library.bpf_table_name.restype = ctypes.c_char_p
    library.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    names = [library.bpf_table_name(module, index) for index in range(library.bpf_num_tables(module))]
    return {name.decode(): int(library.bpf_table_fd(module, name)) for name in names}


def _specification(name: str, fd: int) -> MapSpecification:
    """Return what the kernel says of the map *fd*."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
    found = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    members = ("map_type", "key_size", "value_size", "max_entries", "map_flags")
    return MapSpecification(name, *(int(found[member], 0) for member in members))


def compiler_files(bcc: Any) -> list[str]:
    """Return the paths of what compiles: bcc's module, and the libraries behind it."""
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in mapped if line.count("/")}
    return sorted({bcc.__file__, *(path for path in paths if _LIBRARIES.search(path))})


def answer() -> dict[str, Any]:
    """Serve one request; return what to answer."""
    try:
        bcc = import_bcc()
        request = json.load(sys.stdin)
        found = compile_programs(bcc, request["bpf_dir"], request["macros"], request["programs"])
    except LoadError as error:
        return {"error": error.kind, "message": str(error)}
    return {"error": None, "object": found.to_json(), "files": compiler_files(bcc)}


def main() -> None:
    """Serve one request: JSON on standard input, JSON on standard output, which nothing else is to write to."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        os.dup2(2, 1)
        output.write(json.dumps(answer()))


if __name__ == "__main__":
    main()
