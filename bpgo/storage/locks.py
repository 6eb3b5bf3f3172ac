"""Locks of files, which the operating system drops when the process ends."""

from __future__ import annotations

import errno
import fcntl
from typing import IO, Any

from bpgo.errors import UserError

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # what `flock` says of another's lock


def take(file: IO[Any], remedy: str, wait: bool = False) -> bool:
    """Lock an open file; whether it is this process's now. With `wait` it will be.

    Raises:
        UserError: if the file system knows no locks (Lustre, some NFS); `remedy` says what to do.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in HELD:
            return False
        raise UserError(f"{file.name} cannot be locked ({error.strerror}){remedy}") from None
    return True
