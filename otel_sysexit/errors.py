"""What goes wrong outside this program, said to its user in one line."""

from typing import ClassVar, Final

EXIT_STATUS: Final = 125
"""Exit status of our own failures, as for env(1) and timeout(1): a command can hardly mean it."""
USAGE_STATUS: Final = 2
"""Exit status when something impossible was asked for, as for most programs."""


class AgentError(Exception):
    """A failure to be shown as one line: what is wrong and what to do."""

    exit_status: ClassVar[int] = EXIT_STATUS
    """What the command line ends with."""


class UsageError(AgentError):
    """An option or a variable asks for what does not exist or cannot be."""

    exit_status = USAGE_STATUS
