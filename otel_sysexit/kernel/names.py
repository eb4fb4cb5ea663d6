"""Names of what the loader hands over to the agent; apart, so that each knows them without the other and what that imports."""

from typing import Final

MAPS: Final = (
    *("pending", "pending_owners", "pending_others", "selection", "rate"),
    *("strings", "tasks", "exec_strings", "files", "ledger", "is_closing"),
)
"""Those that the loader hands over, beside the rings of calls."""
CALLS: Final = "calls"
"""The first ring of calls, or the only one."""
CALLS_RINGS: Final = "calls_rings"
"""The map of all of them, if there are several."""
CALLS_RINGS_MAX: Final = 8
"""How many that has room for."""
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
