"""Keeps one server from outliving whoever started it. A script of its own: `process.py` runs it, nothing imports it.

The keeper sits between the starter and the server. It starts the server, prints its process id, and then waits for
one of three things:
- the server ends: so does the keeper, with the server's exit status;
- the starter is gone (its end of the lifeline pipe closed, even by kill -9): the keeper ends the server;
- the starter lets go (a byte on the lifeline): the keeper leaves and the server runs on.

Why a process and not PR_SET_PDEATHSIG in the starter: that signal is tied to the *thread* that started the child, so a
server started by a worker thread would die with the thread. The keeper has one thread, so it can use the signal for
the case that the keeper itself is killed.

Standard library only; runs under `python -I -S` to start in a few milliseconds.
Usage: keeper.py GRACE_S kept|released COMMAND...
"""

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LIFELINE = 0
LET_GO = b"R"
LOOK_EVERY_S = 1.0


def become_server(command: list[str], kept: bool, keeper_pid: int) -> None:
    """In the fork: never returns."""
    try:
        os.setsid()
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        # Python ignores SIGPIPE, and an ignored signal stays ignored through exec.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if kept and sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != keeper_pid:
                os._exit(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]} could not be started: {error}\n".encode())
    finally:
        os._exit(127)


def has_ended(server: int) -> bool:
    """Without reaping it: as long as it is a zombie, its number and its group's cannot be anyone else's."""
    return os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end(server: int, grace_s: float) -> None:
    os.kill(server, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while not has_ended(server) and time.monotonic() < deadline:
        time.sleep(0.02)


def reap(server: int) -> int:
    """Kill what is left of the server's group, then take its exit status."""
    try:
        os.killpg(server, signal.SIGKILL)
    except ProcessLookupError:
        pass
    _, status = os.waitpid(server, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main() -> int:
    grace_s, mode, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    starter, keeper_pid = os.getppid(), os.getpid()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    asked_to_end: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in ENDING:
        signal.signal(number, lambda received, _: asked_to_end.append(received))

    # Held back over the fork: one that came before the exec would meet the keeper's handler in the child, and be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    server = os.fork()
    if server == 0:
        become_server(command, mode == "kept", keeper_pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    os.write(1, f"{server}\n".encode())
    os.close(1)

    while not has_ended(server):
        readable, _, _ = select.select([LIFELINE, wake_read], [], [], LOOK_EVERY_S)
        if wake_read in readable:
            os.read(wake_read, 512)
        if LIFELINE in readable and os.read(LIFELINE, 1) == LET_GO:
            return 0
        # A child that the starter forked may hold the lifeline open after the starter's death: look at the parent too.
        if LIFELINE in readable or asked_to_end or os.getppid() != starter:
            end(server, grace_s)
            break
    return reap(server)


if __name__ == "__main__":
    sys.exit(main())
