"""
Makes docs/attributes.md and docs/environment.md from `attributes.ATTRIBUTES` and `config.SETTINGS`.

Run it with `make docs`; tests/unit/test_docs.py fails when the pages are not what it makes.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from otel_sysexit.attributes import ATTRIBUTES, EVENTS, SCHEMA_URL  # noqa: E402 (the checkout need not be installed)
from otel_sysexit.settings import SETTINGS, Setting  # noqa: E402

LEVELS = {
    "resource": (
        "Resource",
        "One for each program in a process: what was observed, not the agent. After an exec there is a new one.",
    ),
    "call": (
        "Span of a system call",
        "Its name is the call's name, its kind INTERNAL, its times the kernel's.",
    ),
    "process": (
        "Span of a process",
        "With `run`: from a process's start to its end, below its parent's span.",
    ),
    "window": (
        "Root of a window",
        "With `attach`: at most 2,000 calls or 10 s of a process, linked to the window before.",
    ),
    "link": (
        "Link",
        "From the span of a window, a process or a part of a tree to another trace's: docs/traces.md.",
    ),
    "log": (
        "Log record",
        "An event below the program's Resource; its body says it in words. A call has all attributes of its span, a call in flight `thread.*` and `syscall.*` but for the result.",
    ),
}
OTHERS = (
    ("OTEL_RESOURCE_ATTRIBUTES", "`name=value,…`, percent-encoded. Of otel-sysexit itself: added to every Resource, but for `service.*` and what was observed. Of an observed process: describes that process. One error discards the whole value, as the specification wants."),
    ("OTEL_SERVICE_NAME", "Of an observed process: its `service.name`. Of otel-sysexit itself: not used, because the spans are those of the programs that it observes."),
    ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "Where log records go (calls in flight), as it stands. Without it: where spans go, for HTTP with `/v1/logs` instead of `/v1/traces`. All else about sending is as for spans."),
    ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "Headers of log records. Without it `OTEL_EXPORTER_OTLP_HEADERS`; and the headers of spans when log records go where these go."),
    ("OTEL_LOGS_EXPORTER", "`none`: log records go to no collector."),
    ("OTEL_SDK_DISABLED", "`true`: spans go to no collector and no summary is shown, unless `--exporter` or our own variable says where; a file asked for with `--output` is written."),
    ("OTEL_CONFIG_FILE", "Refused with an error: it would make every other variable void, and is not supported."),
    ("HTTP_PROXY, HTTPS_PROXY, NO_PROXY", "Read by the libraries that send."),
    ("NO_COLOR", "Not empty: the summary has no colours."),
    ("PATH", "Where `run` looks for the command."),
)  # fmt: skip

ATTRIBUTES_HEAD = f"""\
# Attributes

<!-- Made by docs/generate.py from otel_sysexit/attributes.py: change that, then `make docs`. -->

Everything that otel-sysexit writes; `OTEL_RESOURCE_ATTRIBUTES` may add to a Resource. Names marked *convention* are those of
OpenTelemetry's semantic conventions, which know no system calls, so the other names are our own. Schema URL of Resources and
scopes: `{SCHEMA_URL}`. Behind a type stands the unit of a quantity (UCUM).

*Required* attributes are always there; *recommended* ones where they are known, unless `--attributes NAME=off` leaves them out; *opt-in* ones
only with `--attributes NAME=on`. A pattern switches many: `--attributes 'host.*=off'`, also what programs say of themselves.

In traces of ours every span has `flags` 0x103 (sampled, random trace id, the parent is local). A call's trace state is `ot=th:<threshold>`: at which
it was sampled, `ot=th:0` where all such calls are here. Spans of processes and windows have `ot=th:0`, and in a trace of sampled calls no trace state.
In the trace of another program flags and trace state are that one's as far as they are known (docs/traces.md). A span's status is ERROR when there is `error.type`, and unset otherwise, never OK.
"""

ENVIRONMENT_HEAD = """\
# Options and environment

<!-- Made by docs/generate.py from otel_sysexit/settings.py: change that, then `make docs`. -->

Everything can be set by an option or by a variable. The first of these that is given counts:

1. the option;
2. our own variable, `OTEL_SYSEXIT_<OPTION>`;
3. the `OTEL_*` variables, in the order in which they stand in the table;
4. the default.

An empty variable counts as not set. What is wrong in an option or in a variable of ours ends the program with one line and exit status
2. What is wrong in an `OTEL_*` variable is warned of and ignored, as OpenTelemetry's specification wants; only an endpoint that HTTP needs `http://` or `https://`
before, and is not there, is such an error, too: spans would go where nobody looks for them. Variables that are not here are not looked at.

| written as | meaning |
| --- | --- |
| DURATION | `500us`, `10ms`, `1.5s`, `1m30s`. In `OTEL_*` variables: milliseconds, a number alone; a timeout of 0 is no limit. |
| SIZE | `64KiB`, `16MiB`, `1GiB`, or bytes. |
| K=V | As an option: one pair, the value as it stands; the option may be repeated. In a variable: pairs between commas, values percent-encoded. |
| flags | The option alone; `true` or `false` in a variable. |

## Settings
"""

ENVIRONMENT_TAIL = """\
Variables of OpenTelemetry that stand in neither table have no effect: there is no SDK in otel-sysexit whose batches, limits or samplers
they could set.

## A service by environment alone

Everything that `attach` needs can stand in a file of variables, for systemd's `EnvironmentFile=` or a container's `--env-file`:

```sh
OTEL_EXPORTER_OTLP_ENDPOINT=https://collector.example:4318
OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN
OTEL_EXPORTER_OTLP_COMPRESSION=gzip
OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=production
OTEL_SYSEXIT_PID=1234
OTEL_SYSEXIT_SYSCALLS=%net,%file
OTEL_SYSEXIT_MIN_DURATION=1ms
OTEL_SYSEXIT_QUIET=true
```

Then the command is `otel-sysexit attach`, without an option.
"""


def row(*cells: str) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(*head: str, rows: list[str]) -> str:
    """Return a table."""
    return "\n".join([row(*head), row(*["---"] * len(head)), *rows]) + "\n"


def code(text: str) -> str:
    """Return text as code; nothing for nothing."""
    return f"`{text}`" if text else ""


def attributes_page() -> str:
    """Return docs/attributes.md."""
    parts = [ATTRIBUTES_HEAD]
    for level, (title, about) in LEVELS.items():
        rows = [
            row(
                code(one.name),
                f"{one.type}, {one.unit}" if one.unit else one.type,
                "convention" if one.is_convention else "ours",
                one.requirement.replace("_", "-"),
                one.note,
                code(one.example),
            )
            for one in ATTRIBUTES
            if one.level == level
        ]
        parts.append(
            f"## {title}\n\n{about}\n\n"
            + table("attribute", "type", "name", "level", "meaning", "example", rows=rows)
        )
    events = table("event name", "meaning", rows=[row(code(one.name), one.note) for one in EVENTS])
    return "\n".join([*parts, events])


def setting_row(setting: Setting) -> str:
    """Return the row of a setting."""
    option = " ".join(filter(None, (setting.short and f"{setting.short},", setting.flag, setting.metavar)))
    # A value is code, words are words.
    default = setting.default if " " in setting.default else code(setting.default)
    only = " Only `attach`." if setting.commands == ("attach",) else ""
    return row(
        code(option),
        code(setting.variable),
        ", ".join(map(code, setting.otel)),
        default,
        setting.help.replace("*", "\\*") + only,
    )


def environment_page() -> str:
    """Return docs/environment.md."""
    settings = table(
        "option",
        "variable",
        "OpenTelemetry's",
        "default",
        "meaning",
        rows=[setting_row(one) for one in SETTINGS],
    )
    otel = (
        "`OTEL_TRACES_EXPORTER` is `otlp`, `console` (the terminal) or `none`. An endpoint in\n"
        "`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is used as it stands; any other gets `/v1/traces` for HTTP, unless it ends with that.\n"
    )
    others = table(
        "variable",
        "meaning",
        rows=[row(", ".join(f"`{one}`" for one in names.split(", ")), note) for names, note in OTHERS],
    )
    return f"{ENVIRONMENT_HEAD}\n{settings}\n{otel}\n## Other variables\n\n{others}\n{ENVIRONMENT_TAIL}"


PAGES = {"attributes.md": attributes_page, "environment.md": environment_page}


def main() -> None:
    """Write the pages."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
