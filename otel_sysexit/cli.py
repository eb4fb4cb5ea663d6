"""Commands and options: click's view of `settings.SETTINGS`; starts the agent."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from otel_sysexit import __version__
from otel_sysexit.settings import SETTINGS

if TYPE_CHECKING:
    from otel_sysexit.command import Inherited


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
    inherited: Inherited = context.obj
    from otel_sysexit.startup import Start  # noqa: PLC0415 (--help can do without)

    with Start("run", options, inherited.environ) as start:
        from otel_sysexit import agent  # noqa: PLC0415 (while the loader works)

        return agent.run(start.config, start.loader, command, inherited)


@cli.command()
@options_of("attach")
@click.pass_context
def attach(context: click.Context, /, **options: Any) -> int:
    """
    Trace running processes, all their threads and the children they start, until Ctrl-C or their end.

    SIGUSR1 shows the calls in flight.
    """
    from otel_sysexit.startup import Start  # noqa: PLC0415 (--help can do without)

    with Start("attach", options, context.obj.environ) as start:
        from otel_sysexit import agent  # noqa: PLC0415 (while the loader works)

        return agent.attach(start.config, start.targets, start.loader)
