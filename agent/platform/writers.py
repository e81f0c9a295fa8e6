"""Whether somebody could be writing to a file at this moment, through a descriptor or a mapping."""

from __future__ import annotations

import signal
import sys

if sys.platform == "linux":
    import fcntl

    def has_writers(descriptor: int) -> bool:
        """Returns False if no process has the file open, or mapped, for writing; True if one has, or nobody can tell.

        `descriptor` must be open for reading only. The kernel grants a read lease only on a file without writers, and
        counts a mapping until it ends (fcntl(2), "Leases"). The lease is given back at once, so nobody waits for it.
        """
        try:
            fcntl.fcntl(
                descriptor, fcntl.F_SETSIG, signal.SIGURG
            )  # whoever opens it just now: a signal that is ignored
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:  # there are writers; or the file is another account's, or its file system knows no leases
            return True
        return False

else:

    def has_writers(descriptor: int) -> bool:
        """Returns True: nobody can tell."""
        del descriptor
        return True
