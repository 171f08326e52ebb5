"""A program that ends and leaves its listeners, fds 3 and 4, to another process.

    successor.py HOW COMMAND…

COMMAND is run by the process that is left, which `LISTEN_PID` names then. This one says its number and ends with 7. HOW is

    fork     a child
    daemon   a grandchild, in a session of its own
    upgrade  a child that is started at SIGUSR2, as nginx and gunicorn do; this one serves until SIGTERM
    wait     a child that runs COMMAND only when it reads a line
"""

import os
import signal
import socket
import sys
import threading


def become(words):
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.execvp(words[0], words)


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def fork(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def wait(words):
    line = b""
    while not line.endswith(b"\n"):
        line = os.read(0, 1)
        if not line:
            os._exit(0)
    become(words)


def serve(listener):
    while True:
        connection, peer = listener.accept()
        with connection:
            reached = connection.getsockname()
            show = lambda one: f"[{one[0]}]:{one[1]}" if ":" in one[0] else f"{one[0]}:{one[1]}"
            connection.sendall(f"old {show(peer)} {show(reached)}\n".encode())
            while data := connection.recv(65536):
                connection.sendall(data)


def main():
    how, words = sys.argv[1], sys.argv[2:]
    if how == "fork":
        say(fork(lambda: become(words)))
    elif how == "wait":
        say(fork(lambda: wait(words)))
    elif how == "daemon":

        def first():
            os.setsid()
            say(fork(lambda: become(words)))
            os._exit(0)

        os.waitpid(fork(first), 0)
    elif how == "upgrade":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})
        for fd in (3, 4):
            listener = socket.socket(fileno=os.dup(fd))
            listener.setblocking(True)
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
        say("serving")
        while signal.sigwait({signal.SIGUSR2, signal.SIGTERM}) == signal.SIGUSR2:

            def new():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2, signal.SIGTERM})
                become(words)

            say(fork(new))
    os._exit(7)


main()
