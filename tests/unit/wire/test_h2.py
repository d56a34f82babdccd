"""HTTP/2 of our own against gRPC's library as the other side, and against whoever breaks the rules."""

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.wire import errors
from brickyard.wire.calls import CallError
from brickyard.wire.h2 import frames
from brickyard.wire.h2.client import Caller
from brickyard.wire.h2.connection import MESSAGE_LIMIT, STREAM_WINDOW, Connection, Stream
from brickyard.wire.h2.server import BothStreams, Call, Raw, Server, ServerStream, StatusError, Unary, serve
from brickyard.wire.pb import control_pb2, errdefs_pb2, rpc_status_pb2
from brickyard.wire.tunnel import tunnel

BIG = os.urandom(1 << 20) * 5
LIMITS = [("grpc.max_receive_message_length", MESSAGE_LIMIT), ("grpc.max_send_message_length", MESSAGE_LIMIT)]
Bytes = control_pb2.BytesMessage


def run(server: Server, connection: socket.socket) -> threading.Thread:
    """Serve a socket in a thread."""
    inner = server.connect(connection.sendall)
    thread = threading.Thread(target=serve, args=(inner, lambda: connection.recv(65536), connection.close), daemon=True)
    thread.start()
    return thread


@contextmanager
def listening(server: Server, path: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            while True:
                try:
                    run(server, listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"unix:{path}"
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def pair(server: Server) -> Iterator[Caller]:
    """A caller of ours and a server of ours."""
    left, right = socket.socketpair()
    thread = run(server, right)
    connection = Connection(left.sendall)
    reader = threading.Thread(target=serve, args=(connection, lambda: left.recv(65536), lambda: None), daemon=True)
    reader.start()
    yield Caller(connection)
    left.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    reader.join(5)
    left.close()
    assert not thread.is_alive()


def fail(request: object, call: Call) -> bytes:
    raise StatusError(errors.NOT_FOUND, "no such thing: 50% ünder\n")


def typed(error: BaseException) -> rpc_status_pb2.Status:
    return errors.make_status(7, str(error), [errdefs_pb2.Vertex(digest="sha256:1")])


def echo(requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
    yield from requests


METHODS = {
    "/t.T/Unary": Unary(Bytes, lambda request, call: Bytes(data=request.data[::-1])),
    "/t.T/Many": ServerStream(Bytes, lambda request, call: (Bytes(data=b"%d" % i) for i in range(len(request.data)))),
    "/t.T/Echo": BothStreams(None, echo),
    "/t.T/Fail": Unary(Bytes, fail),
    "/t.T/Meta": Unary(None, lambda request, call: repr(call.values("a-key")).encode()),
}


@pytest.fixture
def library(tmp_path: Path) -> Iterator[grpc.Channel]:
    """gRPC's library as the client of a server of ours."""
    with listening(Server(METHODS, 8), tmp_path / "s") as address:
        channel = grpc.insecure_channel(address, options=LIMITS)
        yield channel
        channel.close()


def test_the_library_calls_ours(library: grpc.Channel):
    unary = library.unary_unary("/t.T/Unary", Bytes.SerializeToString, Bytes.FromString)
    assert unary(Bytes(data=b"abc")).data == b"cba"
    assert unary(Bytes(data=BIG)).data == BIG[::-1]
    many = library.unary_stream("/t.T/Many", Bytes.SerializeToString, Bytes.FromString)
    assert [m.data for m in many(Bytes(data=b"..."))] == [b"0", b"1", b"2"]
    meta = library.unary_unary("/t.T/Meta")
    assert meta(b"", metadata=(("a-key", "1"), ("a-key", "2"))) == b"['1', '2']"
    messages = [b"x" * (i % 50_000) for i in range(0, 200_000, 777)]
    assert list(library.stream_stream("/t.T/Echo")(iter(messages))) == messages


def test_the_library_sees_our_statuses(library: grpc.Channel):
    with pytest.raises(grpc.RpcError) as caught:
        library.unary_unary("/t.T/Fail")(b"")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "no such thing: 50% ünder\n"
    with pytest.raises(grpc.RpcError) as caught:
        library.unary_unary("/t.T/Nothing")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        library.unary_unary("/t.T/Unary")(b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


class Handler(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method.endswith("Echo"):
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: requests)
        if details.method.endswith("Same"):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        if details.method.endswith("Fail"):

            def failing(request: bytes, context: grpc.ServicerContext) -> bytes:
                status = typed(ValueError("denied: é"))
                context.set_trailing_metadata(((errors.DETAILS_KEY, status.SerializeToString()),))
                context.abort(grpc.StatusCode.PERMISSION_DENIED, status.message)

            return grpc.unary_unary_rpc_method_handler(failing)
        return None


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    """A client of ours on a server of gRPC's library."""
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool, options=LIMITS)
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(f"unix:{tmp_path}/s")
    server.start()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{tmp_path}/s")
        ours = Connection(connection.sendall)
        reader = threading.Thread(target=serve, args=(ours, lambda: connection.recv(65536), lambda: None), daemon=True)
        reader.start()
        yield Caller(ours)
        server.stop(None).wait()
        reader.join(5)
        assert ours.broken
    pool.shutdown()


def test_ours_calls_the_library(caller: Caller):
    request = Bytes(data=b"z")
    assert caller.unary("/t.T/Same", Bytes(data=BIG), Bytes).data == BIG
    with pytest.raises(CallError) as caught:
        caller.unary("/t.T/Fail", request, Bytes)
    assert (caught.value.code, str(caught.value)) == (errors.PERMISSION_DENIED, "denied: é")
    assert caught.value.status is not None
    assert list(errors.read_details(caught.value.status)) == [errdefs_pb2.Vertex(digest="sha256:1")]
    with pytest.raises(CallError) as caught:
        caller.unary("/t.T/None", request, Bytes)
    assert caught.value.code == errors.UNIMPLEMENTED
    stream = caller.stream("/t.T/Echo", [("k", "v"), ("b-bin", b"\0\1")])
    messages = [b"", b"x", BIG, b"y" * 70_000, *[b"%d" % i for i in range(2000)]]

    def send() -> None:
        for message in messages:
            stream.send(message, flush=False)
        stream.close_send()

    sender = threading.Thread(target=send)
    sender.start()
    assert list(iter(stream.receive, None)) == messages
    sender.join(5)


def test_calls_at_the_same_time_in_both_directions():
    with pair(Server(METHODS, 32)) as caller, ThreadPoolExecutor(16) as pool:

        def call(number: int) -> bool:
            data = bytes([number % 256]) * (number * 5_003)
            if number % 2:
                return bool(caller.unary("/t.T/Unary", Bytes(data=data), Bytes, timeout=30).data == data)
            stream = caller.stream("/t.T/Echo")
            for _ in range(5):
                stream.send(data)
            stream.close_send()
            return list(iter(stream.receive, None)) == [data] * 5

        assert all(pool.map(call, range(100)))


def test_a_reader_that_is_slow_holds_the_sender_back():
    taken = threading.Event()

    def slow(requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        assert taken.wait(10)
        yield b"%d" % sum(len(request) for request in requests)

    with pair(Server({"/t.T/Slow": BothStreams(None, slow)}, 2)) as caller:
        stream = caller.stream("/t.T/Slow")
        sent: list[int] = []

        def send() -> None:
            for _ in range(40):
                stream.send(bytes(300_000))
                sent.append(300_000)
            stream.close_send()

        sender = threading.Thread(target=send)
        sender.start()
        sender.join(0.3)
        assert sender.is_alive()
        assert sum(sent) <= 2 * STREAM_WINDOW + 300_000
        taken.set()
        assert stream.receive() == b"12000000"
        sender.join(5)


def test_a_message_over_the_limit_fails_its_call_only():
    with pair(Server(METHODS, 4)) as caller:
        with pytest.raises(CallError) as caught:
            caller.unary("/t.T/Unary", Bytes(data=bytes(MESSAGE_LIMIT)), Bytes)
        assert caught.value.code == errors.RESOURCE_EXHAUSTED
        stream = caller.stream("/t.T/Echo")
        caller.connection.send_data(stream, b"\0\x7f\0\0\0" + bytes(100), end=False, flush=True)
        with pytest.raises(CallError) as caught:
            stream.receive()
        assert caught.value.code == errors.RESOURCE_EXHAUSTED
        assert caller.unary("/t.T/Unary", Bytes(data=b"ab"), Bytes).data == b"ba"


def test_the_end_of_a_call_is_told():
    over = threading.Event()
    begun = threading.Event()

    def wait(requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        assert call.on_end(over.set)
        begun.set()
        assert over.wait(10)
        yield b"too late"

    with pair(Server({"/t.T/Wait": BothStreams(None, wait)}, 2)) as caller:
        stream = caller.stream("/t.T/Wait")
        stream.send(b"")
        assert begun.wait(5)
        stream.cancel()
        assert over.wait(5)
        with pytest.raises(CallError):
            stream.receive()
        with pytest.raises(CallError):
            stream.send(b"")


def test_too_many_calls_are_refused():
    go = threading.Event()
    with pair(Server({"/t.T/W": Unary(None, lambda request, call: str(go.wait(10)).encode())}, 1)) as caller:
        first = caller.stream("/t.T/W")
        first.send(b"")
        second = caller.stream("/t.T/W")
        second.send(b"")
        with pytest.raises(CallError) as caught:
            second.receive()
        assert caught.value.code == errors.RESOURCE_EXHAUSTED
        go.set()
        assert first.receive() == b"True"


def test_a_client_opens_no_more_calls_than_it_may():
    sent = bytearray()
    connection = Connection(sent.extend)
    connection.feed(frames.settings([(frames.MAX_CONCURRENT_STREAMS, 1)]))
    first = connection.open(())
    opened: list[object] = []
    opening = threading.Thread(target=lambda: opened.append(connection.open(())))
    opening.start()
    opening.join(0.1)
    assert opening.is_alive()
    first.cancel()
    opening.join(5)
    assert len(opened) == 1


def test_no_answer_in_time():
    go = threading.Event()
    with pair(Server({"/t.T/W": Unary(None, lambda request, call: str(go.wait(10)).encode())}, 1)) as caller:
        with pytest.raises(CallError) as caught:
            caller.unary("/t.T/W", Bytes(), Bytes, timeout=0.05)
        assert caught.value.code == errors.DEADLINE_EXCEEDED
        go.set()


def test_a_raw_call_takes_messages_as_they_come():
    got: list[bytes] = []
    done = threading.Event()

    def take(stream: object, call: Call) -> None:
        stream.divert(got.append, done.set)  # type: ignore[attr-defined]

    with pair(Server({"/t.T/Raw": Raw(take)}, 1)) as caller:
        stream = caller.stream("/t.T/Raw")
        for number in range(3000):
            stream.send(b"%d" % number * 300, flush=False)
        stream.close_send()
        assert done.wait(5)
    assert got == [b"%d" % number * 300 for number in range(3000)]


def test_a_connection_inside_of_a_call():
    """Both directions at once, with messages longer than any window, in two layers of flow control."""
    callers: list[Caller] = []
    there = threading.Event()

    def begin(stream: Stream, call: Call) -> None:
        callers.append(Caller(tunnel(stream, Connection)))
        there.set()

    inner = Server(METHODS, 16)
    with pair(Server({"/t.T/Session": Raw(begin)}, 1)) as outer, ThreadPoolExecutor(8) as pool:
        stream = outer.stream("/t.T/Session")
        tunnel(stream, inner.connect)
        outer.connection.flush()
        assert there.wait(5)

        def echo_all(number: int) -> bool:
            call = callers[0].stream("/t.T/Echo")
            messages = [bytes([number]) * size for size in (3_000_000, 10, 70_000, 16384, 2_500_000, 1) * 2]

            def send() -> None:
                for message in messages:
                    call.send(message, flush=False)
                call.close_send()

            sender = threading.Thread(target=send)
            sender.start()
            same = list(iter(call.receive, None)) == messages
            sender.join(10)
            return same and not sender.is_alive()

        assert all(pool.map(echo_all, range(6)))
        stream.close_send()
    inner.stop()


def started() -> tuple[Connection, bytearray]:
    """A server's end whose client has said hello."""
    wrote = bytearray()
    server = Server(METHODS, 2)
    connection = server.connect(lambda data: wrote.extend(data))
    connection.feed(frames.PREFACE + frames.settings([]))
    return connection, wrote


HELLO = frames.header_block([(":method", "POST"), (":path", "/t.T/Echo"), ("content-type", "application/grpc")])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("no settings first", frames.PREFACE + frames.frame(frames.PING, 0, 0, bytes(8))),
        ("not HTTP/2", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ],
)
def test_a_client_that_begins_wrong(name: str, data: bytes):
    connection = Server(METHODS, 2).connect(lambda data: None)
    with pytest.raises(frames.ConnectionBroken):
        connection.feed(data)
    assert connection.broken


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a huge frame", b"\xff\xff\xff\0\0\0\0\0\1"),
        ("data of no stream", frames.frame(frames.DATA, 0, 7, b"x")),
        ("even stream", frames.frame(frames.HEADERS, 4, 2, HELLO)),
        ("stream zero", frames.frame(frames.HEADERS, 4, 0, HELLO)),
        ("interrupted headers", frames.frame(frames.HEADERS, 0, 1, HELLO) + frames.frame(frames.PING, 0, 0, bytes(8))),
        ("lone continuation", frames.frame(frames.CONTINUATION, 4, 1, HELLO)),
        ("endless headers", frames.frame(frames.HEADERS, 0, 1, b"") + frames.frame(9, 0, 1, b"a" * 16384) * 70),
        ("short ping", frames.frame(frames.PING, 0, 0, b"1")),
        ("broken settings", frames.frame(frames.SETTINGS, 0, 0, b"12345")),
        ("wide window", frames.window_update(0, 2**31 - 1)),
        ("no window", frames.window_update(0, 0)),
        ("a push", frames.frame(frames.PUSH_PROMISE, 4, 1, b"")),
        ("broken block", frames.frame(frames.HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff")),
        ("padding", frames.frame(frames.HEADERS, 4 | 8, 1, b"\xff" + HELLO[:20])),
        ("compressed", frames.frame(frames.HEADERS, 4, 1, HELLO) + frames.frame(frames.DATA, 0, 1, b"\1\0\0\0\1x")),
    ],
)
def test_broken_rules_end_the_connection(name: str, data: bytes):
    connection, _ = started()
    with pytest.raises(frames.ConnectionBroken):
        connection.feed(data)
    assert connection.broken
    assert connection.calls == 0


def test_one_connection_has_no_more_than_so_many_calls():
    connection, _ = started()
    for number in range(1, 4001, 2):
        connection.feed(frames.frame(frames.HEADERS, 4, number, HELLO))
    assert connection.calls <= 128
    for number in range(1, 4001, 2):
        connection.feed(frames.reset(number, 8))
    assert connection.calls == 0


def test_many_unfinished_messages_end_the_connection():
    connection, _ = started()
    piece = b"\0" + (MESSAGE_LIMIT - 1).to_bytes(4, "big") + bytes(1 << 19)

    def flood() -> None:
        for number in range(1, 200, 2):
            connection.feed(frames.frame(frames.HEADERS, 4, number, HELLO))
            for _ in range(4):
                connection.feed(frames.frame(frames.DATA, 0, number, piece))

    server = Server({"/t.T/Echo": Raw(lambda stream, call: None)}, 1)
    connection = server.connect(lambda data: None)
    connection.feed(frames.PREFACE + frames.settings([]))
    with pytest.raises(frames.ConnectionBroken):
        flood()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_whatever_comes_in_is_taken_or_refused(pieces: list[bytes], client: bool):
    connection = Connection(lambda data: None) if client else started()[0]
    try:
        if client:
            connection.feed(frames.settings([]))
        for piece in pieces:
            connection.feed(piece)
    except frames.ConnectionBroken:
        assert connection.broken


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=40)), max_size=12
    ),
    st.booleans(),
)
def test_whatever_frames_come_are_taken_or_refused(given_frames: list[tuple[int, int, int, bytes]], client: bool):
    connection = Connection(lambda data: None) if client else started()[0]
    try:
        if client:
            connection.feed(frames.settings([]))
        for kind, flags, stream, payload in given_frames:
            connection.feed(frames.frame(kind, flags, stream, payload))
    except frames.ConnectionBroken:
        assert connection.broken


@given(st.lists(st.binary(max_size=70_000), max_size=8), st.data())
@settings(max_examples=60, deadline=None)
def test_messages_come_whole_however_they_are_cut(messages: list[bytes], data: st.DataObject):
    got: list[bytes] = []

    def take(stream: object, call: Call) -> None:
        stream.sink = got.append  # type: ignore[attr-defined]

    connection = Server({"/t.T/Echo": Raw(take)}, 1).connect(lambda data: None)
    connection.feed(frames.PREFACE + frames.settings([]) + frames.frame(frames.HEADERS, 4, 1, HELLO))
    body = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)
    wire = b""
    while body:
        size = data.draw(st.integers(1, 16384))
        wire += frames.frame(frames.DATA, 0, 1, body[:size])
        body = body[size:]
    while wire:
        size = data.draw(st.integers(1, 100_000))
        connection.feed(wire[:size])
        wire = wire[size:]
    assert got == messages
