"""A client's session as the daemon sees it: BuildKit's session services, called over the client's tunnel."""

import secrets
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, BinaryIO, cast
from urllib.parse import quote_plus, urlsplit

from ...wire import errors
from ...wire.calls import CallError, Stream
from ...wire.h2.client import Caller
from ...wire.pb import auth_pb2, content_pb2, secrets_pb2, ssh_pb2, upload_pb2
from ...wire.session import FileFilter, FileReceiver, FileTree
from ...wire.streams import StreamReader, StreamWriter

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
SEND = "/moby.filesync.v1.FileSend/DiffCopy"
CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
FETCH_TOKEN = "/moby.filesync.v1.Auth/FetchToken"
TOKEN_AUTHORITY = "/moby.filesync.v1.Auth/GetTokenAuthority"
GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD_AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
PULL = "/moby.upload.v1.Upload/Pull"
BLOB_INFO = "/containerd.services.content.v1.Content/Info"
BLOB_READ = "/containerd.services.content.v1.Content/Read"
BLOB_WRITE = "/containerd.services.content.v1.Content/Write"

CALL_SECONDS = 60.0
"""How long a client may take over a secret or a credential: it may have to ask its user."""

_SALT = secrets.token_bytes(32)
"""Makes the keys that clients derive for us differ from one start of the daemon to the next."""

_CHUNK = 1 << 20


class GrpcSession:
    """A `wire.session.Session` over a tunnel.

    `methods` are those that the client offers, in lower case as they are compared without regard to case.
    """

    def __init__(self, id: str, caller: Caller, methods: frozenset[str], shared_key: str = "", name: str = "") -> None:
        self.id = id
        self.name = name
        self.closed = threading.Event()
        self.caller = caller
        self._methods = methods
        self._shared_key = shared_key
        self._authorities: dict[str, bytes] = {}

    def offers(self, method: str) -> bool:
        """Whether the client serves `/package.Service/Method`."""
        return method.lower() in self._methods

    def receive(self, name: str, wanted: FileFilter, receiver: FileReceiver) -> None:
        """Transfer a folder's files as the client's `FileSync` sends them."""
        from .files import receive

        if not self.offers(DIFF_COPY):
            raise KeyError(name)
        metadata = encode_metadata(
            {
                "dir-name": [name],
                "include-patterns": wanted.include,
                "exclude-patterns": wanted.exclude,
                "followpaths": wanted.follow,
            }
        )
        try:
            receive(self._stream(DIFF_COPY, metadata), receiver)
        except CallError as error:
            if error.code == errors.NOT_FOUND:
                raise KeyError(name) from error
            raise

    def shared_key(self) -> str:
        """The client's key for its folder, or this session's id."""
        return self._shared_key or self.id

    def open_blob(self, store: str, digest: str) -> BinaryIO:
        """A blob of one of the client's content stores."""
        if not self.offers(BLOB_READ):
            raise KeyError(store)
        metadata = _store_metadata(store)
        try:
            info = self._unary(
                BLOB_INFO, content_pb2.InfoRequest(digest=digest), content_pb2.InfoResponse, metadata
            ).info
        except CallError as error:
            raise _no_blob(error, store, digest) from error
        stream = self._stream(BLOB_READ, metadata)
        stream.send(content_pb2.ReadContentRequest(digest=digest, size=info.size).SerializeToString())
        stream.close_send()
        return cast(
            "BinaryIO", StreamReader(stream, lambda message: content_pb2.ReadContentResponse.FromString(message).data)
        )

    def write_blob(self, store: str, digest: str, size: int, data: Iterable[bytes], labels: Mapping[str, str]) -> None:
        """Put a blob into one of the client's content stores; one that is there already is left as it is."""
        if not self.offers(BLOB_WRITE):
            raise KeyError(store)
        metadata = _store_metadata(store)
        try:
            self._unary(BLOB_INFO, content_pb2.InfoRequest(digest=digest), content_pb2.InfoResponse, metadata)
        except CallError as error:
            if error.code != errors.NOT_FOUND:
                raise
        else:
            return
        stream = self._stream(BLOB_WRITE, metadata)
        ref = f"brickyard-{secrets.token_hex(8)}"
        request = content_pb2.WriteContentRequest
        offset = 0
        for piece in data:
            for at in range(0, len(piece), _CHUNK):
                part = piece[at : at + _CHUNK]
                message = request(
                    action=content_pb2.WRITE, ref=ref, total=size, expected=digest, offset=offset, data=part
                )
                stream.send(message.SerializeToString())
                offset += len(part)
                _confirmed(stream, digest)
        commit = request(
            action=content_pb2.COMMIT, ref=ref, total=size, expected=digest, offset=offset, labels=dict(labels)
        )
        stream.send(commit.SerializeToString())
        stream.close_send()
        try:
            _confirmed(stream, digest)
        except CallError as error:
            if error.code != errors.ALREADY_EXISTS:
                raise

    def secret(self, id: str) -> bytes | None:
        """The value of a secret."""
        if not self.offers(GET_SECRET):
            return None
        try:
            found = self._unary(GET_SECRET, secrets_pb2.GetSecretRequest(ID=id), secrets_pb2.GetSecretResponse)
        except CallError as error:
            if error.code == errors.NOT_FOUND:
                return None
            raise
        return bytes(found.data)

    def has_ssh(self, id: str) -> bool:
        """Whether the client forwards an agent under this id."""
        if not self.offers(CHECK_AGENT):
            return False
        try:
            self._unary(CHECK_AGENT, ssh_pb2.CheckAgentRequest(ID=id or "default"), ssh_pb2.CheckAgentResponse)
        except CallError as error:
            if error.code in (errors.UNAVAILABLE, errors.CANCELLED, errors.DEADLINE_EXCEEDED):
                raise
            return False
        return True

    def forward_ssh(self, id: str, connection: socket.socket) -> None:
        """Serve one connection of a process to the client's agent."""
        if not self.offers(FORWARD_AGENT):
            raise KeyError(id)
        stream = self._stream(FORWARD_AGENT, [("buildkit.ssh.id", id or "default")])
        sender = threading.Thread(target=_send_ssh, args=(stream, connection), name="ssh", daemon=True)
        sender.start()
        try:
            while (message := stream.receive()) is not None:
                connection.sendall(ssh_pb2.BytesMessage.FromString(message).data)
            _shut(connection, socket.SHUT_WR)
            sender.join()
        finally:
            stream.cancel()
            _shut(connection, socket.SHUT_RDWR)
            connection.close()

    def credentials(self, host: str) -> tuple[str, str] | None:
        """What the client has for a registry host."""
        if not self.offers(CREDENTIALS):
            return None
        try:
            found = self._unary(CREDENTIALS, auth_pb2.CredentialsRequest(Host=host), auth_pb2.CredentialsResponse)
        except CallError as error:
            if error.code == errors.UNIMPLEMENTED:
                return None
            raise
        return (found.Username, found.Secret) if found.Secret else None

    def fetch_token(self, host: str, realm: str, service: str, scopes: Sequence[str]) -> tuple[str, int] | None:
        """A bearer token that the client fetched for us, with its seconds of life, so that we see no credentials.

        None where the client has no credentials for the host, or keeps no tokens.
        """
        if not self.offers(FETCH_TOKEN) or not self.token_authority(host):
            return None
        request = auth_pb2.FetchTokenRequest(
            ClientID="buildkit-client", Host=host, Realm=realm, Service=service, Scopes=list(scopes)
        )
        answer = self._unary(FETCH_TOKEN, request, auth_pb2.FetchTokenResponse)
        return answer.Token, answer.ExpiresIn

    def token_authority(self, host: str) -> bytes:
        """The key that stands for the client's credentials for a host; empty where it fetches no tokens itself."""
        known = self._authorities.get(host)
        if known is not None:
            return known
        key = b""
        if self.offers(TOKEN_AUTHORITY):
            request = auth_pb2.GetTokenAuthorityRequest(Host=host, Salt=_SALT)
            try:
                key = self._unary(TOKEN_AUTHORITY, request, auth_pb2.GetTokenAuthorityResponse).PublicKey
            except CallError as error:
                if error.code not in (errors.UNIMPLEMENTED, errors.UNAVAILABLE):
                    raise
        self._authorities[host] = key
        return key

    def output_file(self, exporter: str, metadata: Mapping[str, str]) -> BinaryIO:
        """The stream of an exporter's archive."""
        stream = self._stream(SEND, self._output_metadata(exporter, metadata))
        return cast("BinaryIO", StreamWriter(stream))

    def output_dir(self, exporter: str, files: FileTree, metadata: Mapping[str, str]) -> None:
        """Send files to where the client puts this exporter's."""
        from .files import send

        send(self._stream(SEND, self._output_metadata(exporter, metadata)), files)

    def _output_metadata(self, exporter: str, metadata: Mapping[str, str]) -> list[tuple[str, str]]:
        if not self.offers(SEND):
            raise OSError(f"method {SEND} not supported by the client")
        # Keys of the transfer itself go as they are, those about the export with a prefix.
        values = {key if key.startswith("buildkit-") else f"exporter-md-{key}": [metadata[key]] for key in metadata}
        return encode_metadata({**values, "buildkit-attachable-exporter-id": [exporter]})

    def upload(self, url: str) -> BinaryIO:
        """What the client hands over under a URL of its own."""
        if not self.offers(PULL):
            raise KeyError(url)
        parts = urlsplit(url)
        stream = self._stream(PULL, encode_metadata({"urlpath": [parts.path], "urlhost": [parts.netloc]}))
        stream.close_send()
        return cast("BinaryIO", StreamReader(stream, lambda message: upload_pb2.BytesMessage.FromString(message).data))

    def close(self) -> None:
        """The client is gone: what waits for it fails."""
        self.closed.set()

    @cached_property
    def _gone(self) -> CallError:
        return CallError(errors.UNAVAILABLE, "the client of the session is gone")

    def _unary(self, method: str, request: Any, reply: Any, metadata: Iterable[tuple[str, str]] = ()) -> Any:
        if self.closed.is_set():
            raise self._gone
        return self.caller.unary(method, request, reply, list(metadata), CALL_SECONDS)

    def _stream(self, method: str, metadata: Iterable[tuple[str, str]]) -> Stream:
        if self.closed.is_set():
            raise self._gone
        return self.caller.stream(method, list(metadata))


def encode_metadata(values: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Metadata of a file transfer: values with other than ASCII characters are escaped, and a key beside says so."""
    out: list[tuple[str, str]] = []
    for key, texts in values.items():
        items = list(texts)
        if not all(text.isascii() for text in items):
            items = [quote_plus(text, safe="") for text in items]
            out.append((f"{key}-encoded", "1"))
        out.extend((key, text) for text in items)
    return out


def _store_metadata(store: str) -> list[tuple[str, str]]:
    """The key of a content store: layouts have a prefix, as local caches have (`local:`), and exports go to one."""
    name = store if store == "export" or ":" in store else f"oci:{store}"
    return encode_metadata({"buildkit-attachable-store-id": [name]})


def _no_blob(error: CallError, store: str, digest: str) -> Exception:
    if error.code != errors.NOT_FOUND:
        return error
    if "unknown store" in str(error):
        return KeyError(store)
    return FileNotFoundError(f"{store} has no blob {digest}")


def _confirmed(stream: Stream, digest: str) -> None:
    if stream.receive() is None:
        raise CallError(errors.UNAVAILABLE, f"the client's content store stopped taking {digest}")


def _send_ssh(stream: Stream, connection: socket.socket) -> None:
    try:
        while data := connection.recv(32 << 10):
            stream.send(ssh_pb2.BytesMessage(data=data).SerializeToString())
        stream.close_send()
    except OSError:
        # One of the two sides is closed; the receiving loop sees it too.
        stream.cancel()


def _shut(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:
        # The process closed its end already.
        return
