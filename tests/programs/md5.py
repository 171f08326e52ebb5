# A peer that signs its segments with TCP-MD5 (RFC 2385): `listen ADDRESS PORT PEER[/LEN]…`, or `connect ADDRESS PORT`. When it has
# begun it repeats the first line of its input, and waits for the end of it.
import ipaddress, socket, struct, sys

TCP_MD5SIG, TCP_MD5SIG_EXT, TCP_MD5SIG_FLAG_PREFIX = 14, 32, 1


def sign(one, peer):
    net = ipaddress.ip_network(peer)
    if one.family == socket.AF_INET:
        address = struct.pack("=HH4s", socket.AF_INET, 0, net.network_address.packed)
    else:
        # The kernel counts the length of a mapped one as that of an IPv4 address.
        mapped = f"::ffff:{net.network_address}" if net.version == 4 else str(net.network_address)
        packed = ipaddress.ip_address(mapped).packed
        address = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, packed, 0)
    key = b"secret"
    fields = struct.pack("=BBHI80s", TCP_MD5SIG_FLAG_PREFIX, net.prefixlen, len(key), 0, key)
    one.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG_EXT, address.ljust(128, b"\0") + fields)


what, host, port, *peers = sys.argv[1:]
one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
if what == "listen":
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if host == "::":
        # Whatever the sysctl is: of both families.
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    for peer in peers:
        sign(one, peer)
    one.bind((host, int(port)))
    one.listen()
else:
    sign(one, host)
    one.setblocking(False)
    one.connect_ex((host, int(port)))
sys.stdout.write(sys.stdin.readline())
sys.stdout.flush()
sys.stdin.read()
