"""The whole loop of an agent with the official SDK of Python, by one door and in one mode:

    loop.py http URL MODE NAME
    loop.py stdio MODE NAME COMMAND...
    loop.py tcp MODE NAME

By TCP it opens the session of the agent in whose environment it runs. NAME is whose name it sends to. Prints `done` at the end.
"""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager

import anyio
from mcp import Client, StdioServerParameters
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter


@asynccontextmanager
async def connection():
    """A transport of lines over TCP, behind `hive/open`."""
    host, port = os.environ["HIVEKEEPER_ADDR"].rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
    who = {key: os.environ["HIVEKEEPER_" + key.upper()] for key in ("token", "agent")}
    who |= {"incarnation": int(os.environ["HIVEKEEPER_INCARNATION"]), "protocol": 1, "capabilities": {"tool": True}}
    writer.write(json.dumps({"jsonrpc": "2.0", "id": 0, "method": "hive/open", "params": who}).encode() + b"\n")
    assert "result" in json.loads(await reader.readline())
    heard, read = anyio.create_memory_object_stream(0)
    write, said = anyio.create_memory_object_stream(0)

    async def hear():
        async with heard:
            while line := await reader.readline():
                await heard.send(SessionMessage(jsonrpc_message_adapter.validate_json(line)))

    async def say():
        async with said:
            async for message in said:
                writer.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await writer.drain()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hear)
        tasks.start_soon(say)
        yield read, write
        writer.close()
        tasks.cancel_scope.cancel()


async def main():
    way, *rest = sys.argv[1:]
    if way == "http":
        server, mode, name = rest
    elif way == "stdio":
        mode, name, command, *arguments = rest
        server = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    else:
        (mode, name), server = rest, connection()
    title = f"{way}-{mode}"
    # By HTTP nobody says whose work it is but the call.
    own = {"swarm": "review", "agent": name} if way == "http" else {}
    is_client = "HIVEKEEPER_AGENT" not in os.environ
    async with Client(server, mode=mode) as client:

        async def call(tool, **arguments):
            told = []

            async def progress(done, total, message):
                told.append((done, message))

            answer = await client.call_tool(tool, own | arguments, progress_callback=progress)
            assert not answer.is_error, answer
            assert json.loads(answer.content[0].text) == answer.structured_content
            return answer.structured_content, told

        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["task_list"].annotations.read_only_hint and not tools["task_claim"].annotations.read_only_hint
        (created, _) = await call("task_create", tasks=[{"title": title, "category": title}])
        (claimed, _) = await call("task_claim", categories=[title])
        task = claimed["tasks"][0]
        assert task["id"] == created["tasks"][0]["id"]
        (lock, _) = await call("lock_acquire", resources=[f"src/{title}.rs"])
        await call("message_send", to=name, client=is_client, body={"done": title})
        (received, _) = await call("message_receive")
        (message,) = received["messages"]
        assert message["body"] == {"done": title}
        await call("message_ack", id=message["id"], fence=message["fence"])
        await call("lock_release", id=lock["id"], fence=lock["fence"])
        stale = await client.call_tool("task_complete", own | {"id": task["id"], "fence": 1})
        assert stale.is_error and json.loads(stale.content[0].text)["code"] == "stale_token", stale
        (done, _) = await call("task_complete", id=task["id"], fence=task["claim"]["fence"], result={"by": title})
        assert done["state"] == "done"
        (none, told) = await call("task_claim", categories=[title], wait_ms=1200)
        assert none == {"tasks": []} and told and "task" in told[0][1], told
        graph = await client.read_resource("hive://swarms/review/tasks")
        assert title in graph.contents[0].text
    print("done")


asyncio.run(main())
