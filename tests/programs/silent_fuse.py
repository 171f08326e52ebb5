"""A file system that seldom answers: `silent_fuse.py DIRECTORY` mounts it there, until its standard input is closed.

`file` can be opened; closing it is never answered. Nor is looking up any other name.
"""
import ctypes, os, struct, sys, threading

LOOKUP, FORGET, GETATTR, OPEN, RELEASE, FLUSH, INIT, INTERRUPT, BATCH_FORGET = 1, 2, 3, 14, 18, 25, 26, 36, 42
ENOSYS, MNT_DETACH, PARALLEL_DIROPS = 38, 2, 1 << 18
libc = ctypes.CDLL(None, use_errno=True)
directory = os.fsencode(sys.argv[1])
device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % device
if libc.mount(b"silent", directory, b"fuse", 0, options):
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")


def attributes(node):
    mode = 0o040755 if node == 1 else 0o100666
    return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(opcode, node, name):
    """None: no answer."""
    if opcode == INIT:
        return struct.pack("<4I2H2I2H8I", 7, 31, 0, PARALLEL_DIROPS, 12, 9, 4096, 1, 0, 0, *[0] * 8)
    if opcode == GETATTR:
        return struct.pack("<Q2I", 0, 0, 0) + attributes(node)
    if opcode == LOOKUP and name == b"file\0":
        return struct.pack("<4Q2I", 2, 0, 0, 0, 0, 0) + attributes(2)
    if opcode == OPEN:
        return struct.pack("<Q2I", 0, 0, 0)
    if opcode == RELEASE:
        return b""
    return None


def serve():
    while True:
        try:
            request = os.read(device, 1 << 20)
        except OSError:
            # It is not mounted any more.
            return
        _, opcode, unique, node = struct.unpack_from("<2I2Q", request)
        if opcode in (LOOKUP, FLUSH, FORGET, BATCH_FORGET, INTERRUPT, INIT, GETATTR, OPEN, RELEASE):
            body, error = answer(opcode, node, request[40:]), 0
        else:
            body, error = b"", -ENOSYS
        if body is not None:
            os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


threading.Thread(target=serve, daemon=True).start()
os.stat(directory)
print("ready", flush=True)
sys.stdin.read()
libc.umount2(directory, MNT_DETACH)
# Whoever waits for it gets an error.
os._exit(0)
