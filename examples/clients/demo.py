"""An agent in Python: does its pieces of work, tells how they go, and finishes the one in hand when it is asked to end."""

import signal
import threading
import time

from hive_agent import Agent

finish = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: finish.set())
hive = Agent(on_drain=finish.set)
done = 0
while not finish.is_set():
    time.sleep(0.2)  # one piece of work
    done += 1
    hive.progress({"done": done})
    hive.log(f"piece {done} is done")
    hive.metric("work.duration", 0.2, "s", kind="demo")
    hive.usage({"gen_ai.usage.input_tokens": done * 100, "gen_ai.usage.output_tokens": done * 20})
    if done % 10 == 0:
        hive.batch([("hive/event", {"kind": "milestone", "done": done}), ("hive/log", {"line": "a milestone"})])
hive.event("finished", done=done, dropped=hive.dropped)
hive.flush(5)
