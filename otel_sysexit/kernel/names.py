"""Names of what the loader hands over to the agent; apart, so that each knows them without the other and what that imports."""

from typing import Final

MAPS: Final = (
    *("pending", "pending_owners", "pending_others", "selection", "rate"),
    *("strings", "tasks", "exec_strings", "files", "ledger", "is_closing"),
)
"""Those that the loader hands over, beside the rings of calls."""
# In the order of attaching: whatever ends a call or a thread first, sys_enter last, so that no enter is seen
# whose exit could be missed.
LINKS: Final = (
    "sched_process_exit",
    "sched_process_exec",
    "sched_process_fork",
    "task_rename",
    "sys_exit",
    "sys_enter",
)
"""Programs, by their tracepoints, that the loader attaches, in this order."""
