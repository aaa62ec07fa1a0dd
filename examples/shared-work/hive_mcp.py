"""An MCP client in a few lines: it starts `hivekeeper mcp` and speaks revision 2026-07-28 of the protocol on its standard input and output."""

import json
import subprocess


class Refused(Exception):
    """A tool has refused; `code` is a stable word."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


class Hive:
    """The tools of the hive. Inside an agent it acts in the agent's name; elsewhere say `--swarm` and `--as`."""

    META = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }

    def __init__(self, *options):
        command = ["hivekeeper", "mcp", *options]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.requests = 0

    def call(self, tool, **arguments):
        """Calls a tool and returns its answer."""
        self.requests += 1
        params = {"name": tool, "arguments": arguments, "_meta": self.META}
        request = {"jsonrpc": "2.0", "id": self.requests, "method": "tools/call", "params": params}
        print(json.dumps(request), file=self.server.stdin, flush=True)
        for line in self.server.stdout:
            message = json.loads(line)
            if message.get("id") == self.requests:
                break
        else:
            raise EOFError("hivekeeper mcp has ended")
        if "error" in message:
            raise Refused(message["error"]["code"], message["error"]["message"])
        result = message["result"]
        if result["isError"]:
            raise Refused(**json.loads(result["content"][0]["text"]))
        return result["structuredContent"]
