"""gRPC over HTTP/2 on any byte stream: a session inside `Control.Session`, a frontend's pipes, a socket.

gRPC's library connects to addresses only and spends tens of microseconds on each message; a build context of 50,000
files is 150,000 messages, each twice in HTTP/2. Here frames are taken apart where their bytes arrive.
"""
