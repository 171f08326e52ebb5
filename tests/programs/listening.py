"""A server that knows nothing of inherited sockets: it binds and listens by itself.

    listening.py NAME PORT HOW [WORKERS]

HOW is `pair` (a socket for IPv4, one for IPv6 alone) or `dual` (one IPv6 socket for both). With WORKERS as many
processes make such sockets, each of its own (`SO_REUSEPORT`), and are called NAME-PID.

The first line that a client gets is `NAME CLIENT REACHED`; what follows is sent back. It ends when its standard input
does; a line on that which is a number makes it listen there as well, and say whether it could.
"""

import os
import selectors
import socket
import sys
import threading


def shown(address):
    ip, port = address[:2]
    ip = ip.removeprefix("::ffff:")
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def converse(name, connection, peer):
    with connection:
        try:
            connection.sendall(f"{name} {shown(peer)} {shown(connection.getsockname())}\n".encode())
            while data := connection.recv(65536):
                connection.sendall(data)
        except OSError:
            pass  # The client's business.


def sockets(port, how, shared):
    families = {"pair": [socket.AF_INET, socket.AF_INET6], "dual": [socket.AF_INET6]}[how]
    for family in families:
        listener = socket.socket(family)
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, how == "pair")
        listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        listener.listen(128)
        # Not told by anybody: what it thinks its own socket is.
        assert listener.getblocking() is False and not listener.get_inheritable()
        yield listener


def command(line):
    try:
        extra = socket.create_server(("127.0.0.1", int(line)))
        print("listens on", *extra.getsockname(), flush=True)
        extra.close()
    except OSError as error:
        print("cannot listen:", os.strerror(error.errno), flush=True)


def serve(name, listeners):
    ready = selectors.DefaultSelector()
    for one in [sys.stdin, *listeners]:
        ready.register(one, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is sys.stdin:
                line = sys.stdin.readline()
                if not line:
                    os._exit(0)
                command(line)
                continue
            try:
                connection, peer = key.fileobj.accept()
            except BlockingIOError:
                continue  # Another worker was quicker.
            connection.setblocking(True)
            threading.Thread(target=converse, args=(name, connection, peer), daemon=True).start()


def main():
    if any(name.startswith("LISTEN_") for name in os.environ):
        sys.exit("nobody must tell it of listeners")
    name, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    workers = int((sys.argv[4:] or [0])[0])
    for _ in range(workers):
        pid = os.fork()
        if pid == 0:
            own = list(sockets(port, how, True))
            # One write: workers share the pipe.
            os.write(1, f"worker {os.getpid()}\n".encode())
            serve(f"{name}-{os.getpid()}", own)
    if workers:
        for _ in range(workers):
            os.wait()
    else:
        own = list(sockets(port, how, False))
        print("ready", flush=True)
        serve(name, own)


main()
