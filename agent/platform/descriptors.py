"""How many descriptors (open files and connections) this process may have, and asking for enough of them.

POSIX has a soft limit, which a process may raise up to the hard one; Windows has none that matters here. The workload
inherits what is set here, so it is raised no further than needed: programs that use select(2) break above 1024.
"""

from __future__ import annotations

import sys

DESCRIPTORS_NEEDED = 1024  # all bounds of the link and of the admin port at once, and what the agent itself opens

if sys.platform == "win32":

    def descriptor_limit() -> int | None:
        """Returns how many descriptors this process may have; None: no limit."""
        return None

    def raise_descriptor_limit() -> str | None:
        """Makes sure of DESCRIPTORS_NEEDED; returns None when done, else a sentence saying why not."""
        return None

else:
    import resource

    def descriptor_limit() -> int | None:
        """Returns how many descriptors this process may have; None: no limit."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return None if soft == resource.RLIM_INFINITY else soft

    def raise_descriptor_limit() -> str | None:
        """Makes sure of DESCRIPTORS_NEEDED; returns None when done, else a sentence saying why not."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= DESCRIPTORS_NEEDED:
            return None
        reachable = DESCRIPTORS_NEEDED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_NEEDED)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
        except (OSError, ValueError):
            reachable = soft
        if reachable >= DESCRIPTORS_NEEDED:
            return None
        return (
            f"the agent may have {reachable} files and connections open at a time, so that it serves fewer clients at "
            f"once; allow it more, for example with LimitNOFILE={DESCRIPTORS_NEEDED} in the service unit."
        )
