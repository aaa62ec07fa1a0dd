"""A viewer made with nothing but PyPI's `websockets`. Prints `TYPE SEQ PREV_SEQ` of each frame and steps in the test's time by standard input."""

import asyncio
import json
import sys

import websockets


async def frame(socket):
    told = json.loads(await socket.recv())
    print(told["type"], told["seq"], told["prev_seq"], flush=True)
    return told


async def line():
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def main(url):
    while True:
        async with websockets.connect(url) as socket:
            await frame(socket)
            seen = (await frame(socket))["seq"]
        print("left", flush=True)
        target = await line()
        if not target:
            return
        async with websockets.connect(url) as socket:
            await frame(socket)
            await frame(socket)
            await socket.send(json.dumps({"type": "subscribe", "after": seen}))
            while (await frame(socket))["type"] != "subscription_ack":
                pass
            while (await frame(socket))["seq"] < int(target):
                pass
        print("done", flush=True)


asyncio.run(main(sys.argv[1]))
