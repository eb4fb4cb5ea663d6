"""What goes wrong outside this program, said to its user in one line."""


class AgentError(Exception):
    """
    A failure to be shown as one line: what is wrong and what to do.

    The command line ends with `EXIT_STATUS` when it meets one.
    """


EXIT_STATUS = 125
"""Exit status of our own failures, as for env(1) and timeout(1): a command can hardly mean it."""
