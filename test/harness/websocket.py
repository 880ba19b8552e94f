"""A WebSocket server and client by python's websockets:

    python3 websocket.py server PORT          echoes; answers /refused with 403; says "ready"
    python3 websocket.py client PORT COUNT    sends frames, wants each back in order, is refused once
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus


async def echo(socket):
    async for message in socket:
        await socket.send(message)


def refuse(connection, request):
    return connection.respond(403, "no\n") if request.path == "/refused" else None


async def server(port):
    async with serve(echo, "127.0.0.1", int(port), process_request=refuse, max_size=None):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


def frame(index):
    text = f"{index}:" + "x" * (index % 300)
    return text if index % 2 == 0 else text.encode()


async def client(port, count):
    async with connect(f"ws://127.0.0.1:{port}/echo", max_size=None) as socket:

        async def send():
            for index in range(int(count)):
                await socket.send(frame(index))

        sending = asyncio.create_task(send())
        for index in range(int(count)):
            assert await socket.recv() == frame(index), index
        await sending
        large = bytes(range(256)) * 8192
        await socket.send(large)
        assert await socket.recv() == large
        await socket.send("piece " for _ in range(100))
        assert await socket.recv() == "piece " * 100
        await asyncio.wait_for(await socket.ping(), 5)
    try:
        async with connect(f"ws://127.0.0.1:{port}/refused"):
            raise AssertionError("not refused")
    except InvalidStatus as refused:
        assert refused.response.status_code == 403


asyncio.run({"server": server, "client": client}[sys.argv[1]](*sys.argv[2:]))
