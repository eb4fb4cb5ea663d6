"""
From what was asked for to a loader at work.

In: options and environment. Out: a `Config`, the `Targets`, and a `Loader`, started as soon as its `Request` is known: everything else is
imported while it works.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from otel_sysexit import targets
from otel_sysexit.cgroups import main_hierarchy, read_mounts, subsystem
from otel_sysexit.config import Config, resolve
from otel_sysexit.errors import UsageError
from otel_sysexit.kernel.contextmap import DEFAULT_PATH, open_context_map
from otel_sysexit.kernel.handover import Loader
from otel_sysexit.kernel.request import Request, Selection, Thresholds
from otel_sysexit.sampling import threshold_of
from otel_sysexit.selections import Durations, kernel_table
from otel_sysexit.targets import Targets

_NEVER_NS: Final = 1 << 63


class Start:
    """What a command begins with; to be left when it ends."""

    def __init__(self, command: str, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        """
        Resolve what was asked of *command* (`run` or `attach`) and start the loader.

        Raises:
            UsageError: it is a mistake.
        """
        config = resolve(command, options, environ)
        self.targets = resolve_targets(config, has_command=command == "run")
        self.config, context_map = find_context_map(config)
        self.loader = Loader(make_request(self.config, self.targets, context_map))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the loader, if it is still at work."""
        self.loader.close()


def resolve_targets(config: Config, *, has_command: bool) -> Targets:
    """Return what the selectors of *config* mean on this machine; raises UsageError."""
    return targets.resolve(
        config.chosen,
        config.excluded,
        is_all=config.is_all,
        follows_children=config.follows_children,
        has_command=has_command,
        own_pids=(os.getpid(),),
    )


def find_context_map(config: Config) -> tuple[Config, int | None]:
    """
    Find the map that says which span each thread is in.

    Returns:
        *config*, with a warning where the map that is there cannot be used; and the map's descriptor, open as long as we run, or None.

    Raises:
        UsageError: the map that was asked for is not there, or is none.
    """
    path = config.trace_context_map
    is_asked = path not in ("auto", "none")
    if path == "auto":
        path = DEFAULT_PATH
    if path == "none" or not (is_asked or os.path.exists(path)):  # noqa: PTH110 (where we may not look is nothing)
        return config, None
    try:
        return config, open_context_map(path)
    except ValueError as error:
        if is_asked:
            raise UsageError(f"--trace-context-map: {error}") from error
        return replace(
            config, warnings=(*config.warnings, f"the map of trace contexts is ignored: {error}")
        ), None


def make_request(config: Config, chosen: Targets, context_map: int | None = None) -> Request:
    """Return what *config* asks of the kernel side, for the threads that are *chosen*, with the map found by `find_context_map`."""
    return Request(
        calls_bytes=config.ring_bytes,
        cpus=os.cpu_count() or 1,
        calls_rings_max=config.rings,
        syscall_table=kernel_table(config.syscalls),
        has_set=config.syscalls is not None,
        wants_unknown=config.syscalls is None or config.syscalls.includes_unknown,
        args=config.args,
        has_command_args=config.has_command_args,
        string_limit=config.string_limit,
        errors_only=config.errors_only,
        wanted_errnos=None if config.errnos is None else config.errnos.table(),
        min_duration=_thresholds(config.min_duration, none_ns=0),
        sample_threshold=0 if config.max_rate else threshold_of(config.sample),
        has_max_rate=config.max_rate > 0,
        kept_errnos=_kept_errnos(config) if config.keep_errors else None,
        keep_slow=_thresholds(config.keep_slow, none_ns=_NEVER_NS),
        reports_stuck=bool(config.stuck_after_ns),
        selection=Selection(chosen.cflags(), chosen.selection_keys(), chosen.exe_globs()),
        cgroup_subsystem=_cgroup_subsystem(chosen),
        own_tgid=os.getpid(),
        current_spans_fd=context_map,
        bcc_python=config.bcc_python,
        cache_dir=config.cache_dir,
    )


def _cgroup_subsystem(chosen: Targets) -> str | None:
    """Return by what the hierarchy is reached that cgroups are told of: where some were named, theirs."""
    controllers = chosen.controllers
    if controllers is None:
        controllers = main_hierarchy(read_mounts())
    return controllers and subsystem(controllers)


def _thresholds(durations: Durations | None, none_ns: int) -> Thresholds | None:
    """Return *durations* for the kernel side; where there is none: *none_ns*."""
    if durations is None:
        return None
    table = durations.table() if durations.by_call_ns else None
    if table is not None:
        table[table == 0] = none_ns
    return Thresholds(durations.default_ns or none_ns, table)


def _kept_errnos(config: Config) -> npt.NDArray[np.uint8]:
    """Return 1 for every errno that is an error."""
    kept = (~config.benign_errors.everywhere()).astype(np.uint8)
    kept[0] = 0
    return kept
