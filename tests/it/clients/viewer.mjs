// A viewer made with nothing but npm's `ws`. Prints `TYPE SEQ PREV_SEQ` of each frame and steps in the test's time by standard input.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const [url, modules] = process.argv.slice(2);
const WebSocket = createRequire(modules + "/")("ws");
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// `each` returns true when it has seen enough.
const watch = (each) =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(url);
    socket.on("error", reject);
    socket.on("close", resolve);
    let enough = false;
    socket.on("message", (text) => {
      if (enough) return;
      const told = JSON.parse(text);
      console.log(told.type, told.seq, told.prev_seq);
      enough = each(told, socket);
      if (enough) socket.close();
    });
  });

for (;;) {
  let seen = 0;
  await watch((told) => {
    seen = told.seq;
    return told.type === "status_update";
  });
  console.log("left");
  const { value: target, done } = await lines.next();
  if (done) break;
  let [asked, resumed] = [false, false];
  await watch((told, socket) => {
    if (!asked && told.type === "status_update") {
      asked = true;
      socket.send(JSON.stringify({ type: "subscribe", after: seen }));
    } else if (told.type === "subscription_ack") {
      resumed = true;
    } else {
      return resumed && told.seq >= Number(target);
    }
  });
  console.log("done");
}
