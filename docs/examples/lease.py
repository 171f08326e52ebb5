#!/usr/bin/env python3
"""Asks redirector for the listeners of a namespace, and serves from them.

    lease.py HANDOFF_SOCKET TARGET MATCH

for example `lease.py /run/redirector/handoff.sock netns:web tcp:80`. The rule is in force until this process ends.
Python 3.9 or later, nothing else.
"""

import json
import selectors
import socket
import sys

LONGEST_MESSAGE = 64 * 1024


class Refused(Exception):
    """The daemon says no; `code` is `usage`, `not_found` or `failed`."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code, self.hint = error["code"], error.get("hint")


def lease(path, request):
    """Sends a request and returns the answer and the listeners, in the answer's order."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)
        connection.send(json.dumps(request).encode())
        message, fds, _, _ = socket.recv_fds(connection, LONGEST_MESSAGE, 8)
    # Owned from here on, whatever the message says.
    listeners = [socket.socket(fileno=fd) for fd in fds]
    if not message:
        raise ConnectionError("the daemon closed the connection")
    answer = json.loads(message)
    if "error" in answer:
        raise Refused(answer["error"])
    return answer, listeners


def main():
    path, target, match = sys.argv[1:]
    try:
        answer, listeners = lease(path, {"target": target, "match": [match]})
    except Refused as refused:
        sys.exit(f"{refused.code}: {refused}")
    print("rule", answer["rule"], flush=True)
    waiting = selectors.DefaultSelector()
    for listener in listeners:
        waiting.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            connection, client = key.fileobj.accept()
            with connection:
                original = connection.getsockname()
                connection.sendall(f"{client[0]} {client[1]} reached {original[0]} {original[1]}\n".encode())


if __name__ == "__main__":
    main()
