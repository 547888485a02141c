"""The links that the nemesis cuts do fail as it says, and are well again afterwards."""

import socket
import threading

import pytest

import proxy

PIECE = b"0123456789abcdef" * 64


@pytest.fixture
def line():
    """(proxy, link, the peer's socket, the listener's socket), connected through the link."""
    listener = socket.create_server(("127.0.0.1", 0))
    between = proxy.Proxy()
    link = between.link("test", listener.getsockname())
    peer = socket.create_connection(("127.0.0.1", link.port))
    server, _ = listener.accept()
    for end in (peer, server):
        end.settimeout(10)
    yield between, link, peer, server
    for end in (peer, server, listener):
        end.close()
    between.close()


def receive(end, wanted=None):
    """All that comes until the end, or so many bytes."""
    data = b""
    try:
        while wanted is None or len(data) < wanted:
            piece = end.recv(65536)
            if not piece:
                break
            data += piece
    except ConnectionResetError:
        pass
    return data


def comes(end):
    end.settimeout(0.3)
    try:
        return bool(end.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        end.settimeout(10)


def test_link_that_is_well_carries_both_ways(line):
    _, _, peer, server = line
    for sender, receiver in ((peer, server), (server, peer)):
        threading.Thread(target=sender.sendall, args=(PIECE * 1000,)).start()
        assert receive(receiver, len(PIECE) * 1000) == PIECE * 1000


def test_cut_ends_the_connection_and_a_new_one_is_taken(line):
    between, link, peer, server = line
    between.fail(link, "cut")
    assert receive(peer) == b"" and receive(server) == b""
    assert link.is_open["up"].is_set()


@pytest.mark.parametrize("fault, up, down", [("blackhole", False, False), ("oneway_up", False, True), ("oneway_down", True, False)])
def test_held_direction_is_silent_until_healed(line, fault, up, down):
    between, link, peer, server = line
    between.fail(link, fault)
    peer.sendall(b"up")
    server.sendall(b"down")
    assert comes(server) == up and comes(peer) == down
    between.heal(link)
    assert receive(server, 2) == b"up" and receive(peer, 4) == b"down"


def test_healing_with_a_cut_loses_what_was_held(line):
    between, link, peer, server = line
    between.fail(link, "blackhole")
    peer.sendall(b"up")
    assert not comes(server)
    between.heal(link, cut=True)
    assert receive(server) == b""


@pytest.mark.parametrize("fault, sends, receives", [("truncate_up", 2, 3), ("truncate_down", 3, 2)])
def test_truncation_carries_a_part_and_ends(line, fault, sends, receives):
    between, link = line[:2]
    between.fail(link, fault)
    line[sends].sendall(PIECE)
    got = receive(line[receives])
    assert 0 < len(got) < len(PIECE) and PIECE.startswith(got)


def test_delay_keeps_the_order(line):
    between, link, peer, server = line
    between.fail(link, "delay")
    for i in range(20):
        peer.sendall(bytes([i]))
    assert receive(server, 20) == bytes(range(20))


def test_peer_of_a_listener_that_is_gone_sees_an_end():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    between = proxy.Proxy()
    with socket.create_connection(("127.0.0.1", between.link("gone", address).port)) as peer:
        peer.settimeout(10)
        assert receive(peer) == b""
    between.close()
