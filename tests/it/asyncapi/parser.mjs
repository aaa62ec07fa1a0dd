// The document of `process.argv[2]` judged by AsyncAPI's own parser, npm's `@asyncapi/parser` below `process.argv[3]`. Prints whatever it objects to,
// hints too, and ends with 1 if there is anything.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [file, modules] = process.argv.slice(2);
const { Parser } = createRequire(modules + "/")("@asyncapi/parser");
const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
for (const { severity, code, path, message } of diagnostics) console.log(severity, code, path.join("/"), message);
process.exit(document && diagnostics.length === 0 ? 0 : 1);
