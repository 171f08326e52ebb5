"""A server that systemd's socket activation starts: it listens nowhere itself.

    activated.py NAME [WORKERS]

The first line that a client gets is `NAME CLIENT REACHED`; what follows is sent back. With WORKERS as many processes
serve, each called NAME-PID, and this one only waits for them. It ends when its standard input does.
"""

import os
import select
import socket
import sys
import threading

FIRST_FD = 3


def shown(address):
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def converse(name, connection, peer):
    with connection:
        try:
            connection.sendall(f"{name} {shown(peer)} {shown(connection.getsockname())}\n".encode())
            while data := connection.recv(65536):
                connection.sendall(data)
        except OSError:
            pass  # The client's business.


def serve(name, listeners):
    while True:
        ready, _, _ = select.select([sys.stdin, *listeners], [], [])
        if sys.stdin in ready:
            os._exit(0)
        for listener in ready:
            try:
                connection, peer = listener.accept()
            except BlockingIOError:
                continue  # Another worker was quicker.
            connection.setblocking(True)
            threading.Thread(target=converse, args=(name, connection, peer), daemon=True).start()


def main():
    if os.environ["LISTEN_PID"] != str(os.getpid()):
        sys.exit("the listeners are meant for another process")
    count = int(os.environ["LISTEN_FDS"])
    listeners = [socket.socket(fileno=fd) for fd in range(FIRST_FD, FIRST_FD + count)]
    for listener in listeners:
        listener.setblocking(False)
    name, workers = sys.argv[1], int((sys.argv[2:] or [0])[0])
    for _ in range(workers):
        pid = os.fork()
        if pid == 0:
            serve(f"{name}-{os.getpid()}", listeners)
        print("worker", pid, flush=True)
    print("ready", flush=True)
    if workers:
        sys.stdin.read()
    else:
        serve(name, listeners)


main()
