"""Everything that can go wrong with the embedded servers.

LocalServersError
├── CannotRun        a server was asked for that this machine cannot run
├── FetchFailed      a download or a build did not finish
├── NotReady         a server was started but ended, or did not answer in time
├── AlreadyRunning   this data folder's servers run already
├── Busy             another process is starting or stopping this data folder's servers
└── FolderUnusable   the data folder holds other things, or its record cannot be read; it or the cache cannot be written
"""

from __future__ import annotations


class LocalServersError(Exception):
    """The message says what was wrong, where, and what to do next."""


class CannotRun(LocalServersError):
    """A server was asked for that this machine cannot run; the message says how to get what is missing."""


class FetchFailed(LocalServersError):
    """A download or a build did not finish."""


class NotReady(LocalServersError):
    """A server ended or did not answer in time; the message ends with its last log lines."""


class AlreadyRunning(LocalServersError):
    """This data folder's servers run already."""


class Busy(LocalServersError):
    """Another process is starting or stopping the servers of the same data folder."""


class FolderUnusable(LocalServersError):
    """The data folder holds other things, or its record cannot be read; it or the cache cannot be written."""
