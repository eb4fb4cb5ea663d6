"""Entry point of `otel-sysexit` and of `python -m otel_sysexit`."""

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

# Until there is a command to care for, a Ctrl-C just ends us. (An ignored one stays ignored.)
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
# Who asks for a report while we start gets it when there is one: unblocked, the signal would end us.
_SIGNAL_MASK = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
# A descriptor below 3 that was closed for us must not become one of ours; as these end at exec, a command gets none.
while (_fd := os.open(os.devnull, os.O_RDWR)) < 3:
    pass
os.close(_fd)
if sys.stderr is None:
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 (as long as we live)


def read_environment() -> dict[str, str]:
    """Return the environment as it was given to us: Python may have added LC_CTYPE to os.environ (PEP 538)."""
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123 (pathlib is slow to import)
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = (entry.partition(b"=") for entry in entries if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


# What a traced command gets, as the signal mask above; ours is changed below.
_ENVIRON = read_environment()
# Columns are added and shifted here, no matrices multiplied: threads for that would only cost memory.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# What gRPC's core would write on stderr is in the ledger, in other words.
os.environ["GRPC_VERBOSITY"] = "NONE"
# config.py reads these as the specification wants; the exporters would read them again, and some of them otherwise.
for _name in [name for name in os.environ if name.startswith("OTEL_EXPORTER_OTLP_")]:
    del os.environ[_name]


def main() -> NoReturn:
    """Run the command line; every failure of ours is one line on stderr and a defined exit status."""
    import logging  # noqa: PLC0415 (the environment comes first)

    import click  # noqa: PLC0415

    from otel_sysexit.cli import cli  # noqa: PLC0415
    from otel_sysexit.command import CommandError, Inherited  # noqa: PLC0415
    from otel_sysexit.errors import EXIT_STATUS, USAGE_STATUS, AgentError  # noqa: PLC0415
    from otel_sysexit.messages import explain_bug, say  # noqa: PLC0415

    # The exporters log each retry; what matters of it is in the ledger, with its reason.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    try:
        status = cli.main(
            prog_name="otel-sysexit", standalone_mode=False, obj=Inherited(_ENVIRON, _SIGNAL_MASK)
        )
    except (CommandError, AgentError) as error:
        say(str(error))
        status = error.exit_status
    except click.ClickException as error:
        say(f"{error.format_message()} (try --help)")
        status = USAGE_STATUS
    except OSError as error:  # --help on a full disk
        say(str(error))
        status = EXIT_STATUS
    except Exception as error:  # noqa: BLE001 (the last resort: one line instead of a traceback)
        explain_bug(error)
        status = EXIT_STATUS
    with suppress(OSError):
        sys.stderr.flush()
    # Daemon threads may be inside a library that is shutting down: leave without their last words.
    os._exit(status or 0)


if __name__ == "__main__":
    main()
