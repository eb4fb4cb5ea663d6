"""Commands and options: click's view of `config.SETTINGS`; builds a Config and runs the agent."""

from collections.abc import Callable, Mapping
from typing import Any

import click
import numpy as np

from otel_sysexit import __version__
from otel_sysexit.config import SETTINGS, Config, resolve
from otel_sysexit.kernel.capture import Loader, Request
from otel_sysexit.selections import path_arguments_table, wanted_table


def options_of(command: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the options of *command*."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for setting in reversed(SETTINGS):
            if command not in setting.commands:
                continue
            names = [name for name in (setting.short, setting.flag, setting.name) if name]
            note = f"  [default: {setting.default}]" if setting.default else ""
            if setting.metavar:
                option = click.option(
                    *names, metavar=setting.metavar, multiple=setting.is_list, help=setting.help + note
                )
            else:
                option = click.option(*names, is_flag=True, default=None, help=setting.help)
            function = option(function)
        return function

    return decorate


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    no_args_is_help=False,  # an error is one line
)
@click.version_option(__version__, "--version", prog_name="otel-sysexit", message="%(prog)s %(version)s")
def cli() -> None:
    """
    Show what programs ask of the Linux kernel, as OpenTelemetry spans.

    Every option can also be set as OTEL_SYSEXIT_<OPTION>; the collector as OTEL_EXPORTER_OTLP_*. See
    docs/environment.md.
    """


@cli.command(context_settings={"allow_interspersed_args": False})
@options_of("run")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(context: click.Context, /, command: tuple[str, ...], **options: Any) -> int:
    """
    Start COMMAND and trace it and its children; the exit status is the command's own.

    Signals go to COMMAND, but for SIGUSR1, which shows the calls in flight.
    """
    environ: Mapping[str, str] = context.obj
    config = resolve("run", options, environ)
    with Loader(make_request(config)) as loader:
        from otel_sysexit import agent  # noqa: PLC0415 (while the loader compiles)

        return agent.run(config, loader, command, environ)


@cli.command()
@options_of("attach")
@click.pass_context
def attach(context: click.Context, /, **options: Any) -> int:
    """
    Trace running processes, all their threads and the children they start, until Ctrl-C or their end.

    SIGUSR1 shows the calls in flight.
    """
    config = resolve("attach", options, context.obj)
    with Loader(make_request(config)) as loader:
        from otel_sysexit import agent  # noqa: PLC0415 (while the loader compiles)

        return agent.attach(config, loader)


def make_request(config: Config) -> Request:
    """Return what *config* asks of the kernel side."""
    paths = path_arguments_table()
    wanted = wanted_table(config.syscalls) if config.syscalls else np.zeros_like(paths)
    # Packed as bpf/calls.bpf.c wants it: in the set, second path argument, first path argument. Entries that are 0 are
    # not written, so the first is set only where it is looked at.
    table = (wanted << 7 | (paths >> 4 & 0x07) << 3 | paths & 0x07).astype(np.uint8)
    return Request(
        calls_bytes=config.ring_bytes,
        syscall_table=table,
        has_selection=config.syscalls is not None,
        wants_unknown=config.syscalls is None or config.syscalls.includes_unknown,
        errors_only=config.errors_only,
        min_duration_ns=config.min_duration_ns,
        bcc_python=config.bcc_python,
    )
