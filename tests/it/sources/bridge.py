"""Bridges TCP to programs that speak over stdin and stdout: each connection gets a process of its own.

bridge.py [--banner TEXT] PROGRAM ARGS...   prints the port that it took on 127.0.0.1, then serves until stdin ends.
"""

import asyncio
import os
import sys


async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def serve(reader, writer, banner, command):
    program = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        if banner:
            writer.write(banner.encode() + b"\n")
        both = [asyncio.create_task(pump(reader, program.stdin)), asyncio.create_task(pump(program.stdout, writer))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
    finally:
        if program.returncode is None:
            program.kill()
        await program.wait()
        writer.close()


async def main():
    words = sys.argv[1:]
    banner = ""
    if words and words[0] == "--banner":
        banner, words = words[1], words[2:]
    handlers = set()

    async def handle(reader, writer):
        handlers.add(asyncio.current_task())
        try:
            await serve(reader, writer, banner, words)
        except (asyncio.CancelledError, ConnectionError):
            pass  # We end, or the client has gone.
        finally:
            handlers.discard(asyncio.current_task())

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Whoever started us holds the other end, and so ends us whatever becomes of it.
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()
    for task in list(handlers):
        task.cancel()
    await asyncio.gather(*handlers, return_exceptions=True)
    # Nothing is left that could wait for the listener's own tasks.
    os._exit(0)


asyncio.run(main())
