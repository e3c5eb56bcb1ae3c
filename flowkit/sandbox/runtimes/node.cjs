// Runs code of a node that is JavaScript: asks for its inputs on the channel (descriptor 3), runs it, gives its result.
//
// The code is a CommonJS module with a function `main(inputs)`, or an ES module that exports one. It has a global
// `flowkit`; what it prints becomes lines of the log.
"use strict";

const fs = require("node:fs");
const Module = require("node:module");
const path = require("node:path");

const CHANNEL = 3;
const PLACEHOLDER = /(["'`])\{\{\{secret::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(?:@[1-9][0-9]{0,8})?)\}\}\}\1/g;
const BARE = /\{\{\{secret::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(?:@[1-9][0-9]{0,8})?)\}\}\}/g;
const PERMANENT = new Set(["TypeError", "RangeError", "SyntaxError", "ReferenceError"]);
// Whoever reads it cuts it further, once secrets are covered.
const MOST_MESSAGE = 64 * 1024;
const MOST_TRACE = 64 * 1024;

class BadOutput extends Error {}
class SecretUnavailable extends Error {}

let done = false;

function write(message) {
  const body = Buffer.from(JSON.stringify(message));
  const frame = Buffer.alloc(4 + body.length);
  frame.writeUInt32BE(body.length);
  body.copy(frame, 4);
  for (let at = 0; at < frame.length; ) at += fs.writeSync(CHANNEL, frame, at);
}

function read(count) {
  const data = Buffer.alloc(count);
  for (let at = 0; at < count; ) {
    const got = fs.readSync(CHANNEL, data, at, count - at, null);
    if (got === 0) process.exit(1); // nobody is at the other end
    at += got;
  }
  return data;
}

function ask(message) {
  write(message);
  return JSON.parse(read(read(4).readUInt32BE()).toString());
}

const job = ask({ do: "start" });

function log(level, parts) {
  write({ do: "log", level, message: parts.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join(" ") });
}

const known = new Map();

const flowkit = {
  inputs: withBytes(job.inputs, job.bytes),
  job: { node: job.node, taskId: job.task_id, attempt: job.attempt, idempotencyKey: job.idempotency_key },
  log: Object.fromEntries(
    ["debug", "info", "warning", "error"].map((level) => [level, (...parts) => log(level, parts)]),
  ),
  progress(finished, total, message = "") {
    write({ do: "progress", done: finished ?? null, total: total ?? null, message: String(message) });
  },
  cancelled: () => ask({ do: "cancelled" }).value,
  secret(name) {
    if (!known.has(name)) {
      const answer = ask({ do: "secret", name });
      if (!("value" in answer)) throw new SecretUnavailable(answer.error);
      known.set(name, answer.value);
    }
    return known.get(name);
  },
  // Which successors run: `return flowkit.next(["b"], output)`.
  next: (nodes, output = null) => new Next(nodes, output),
};

class Next {
  constructor(nodes, output) {
    if (!Array.isArray(nodes) || !nodes.every((node) => typeof node === "string")) {
      throw new TypeError("flowkit.next takes a list of node ids");
    }
    this.nodes = nodes;
    this.output = output;
  }
}

function withBytes(inputs, rows) {
  for (const [place, text] of rows) {
    const data = Buffer.from(text, "base64");
    if (place.length === 0) return data;
    const parent = place.slice(0, -1).reduce((value, step) => value[step], inputs);
    parent[place.at(-1)] = data;
  }
  return inputs;
}

function give(value) {
  const said = { do: "result" };
  if (value instanceof Next) {
    said.next = value.nodes;
    value = value.output;
  }
  if (Buffer.isBuffer(value) || value instanceof Uint8Array) said.bytes = Buffer.from(value).toString("base64");
  else said.output = plain(value, "output", 1);
  const size = Buffer.byteLength(JSON.stringify(said));
  if (size > job.most_bytes) throw new BadOutput(`the output has ${size} bytes, at most ${job.most_bytes} are allowed`);
  done = true;
  write(said);
}

function plain(value, place, depth) {
  if (value === undefined || value === null) return null;
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new BadOutput(`${place}: JSON has no ${value}; use null or a string`);
    return value;
  }
  if (depth > 64) throw new BadOutput(`${place}: values are nested more than 64 deep; flatten them`);
  if (typeof value.toJSON === "function") return plain(value.toJSON(), place, depth + 1);
  if (Array.isArray(value)) return value.map((item, at) => plain(item, `${place}[${at}]`, depth + 1));
  if (typeof value === "object" && !(value instanceof Map) && !(value instanceof Set)) {
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => [key, plain(item, `${place}.${key}`, depth + 1)]),
    );
  }
  const kind = typeof value === "object" ? value.constructor.name : typeof value;
  throw new BadOutput(`${place}: JSON cannot say a ${kind}; use strings, numbers, lists and objects`);
}

// Each value that a generator yields is a batch of the node's stream.
async function handOn(batches) {
  for (let count = 0; ; count += 1) {
    const { done: over, value } = await batches.next();
    if (over) return value ?? { batches: count };
    const batch = { do: "batch", output: plain(value, "batch", 1) };
    if (Buffer.byteLength(JSON.stringify(batch)) > job.most_bytes) throw new BadOutput("a batch is too large");
    ask(batch);
  }
}

function fail(error) {
  if (done) {
    console.error(error);
    return;
  }
  done = true;
  const own = error instanceof Error ? error : new Error(String(error));
  const said = { do: "failed", type: own.name, message: own.message.slice(0, MOST_MESSAGE), permanent: PERMANENT.has(own.name) };
  if (own instanceof BadOutput || own instanceof SecretUnavailable) {
    Object.assign(said, { code: own instanceof BadOutput ? "bad_output" : "secret_unavailable", permanent: true });
  } else {
    if (typeof own.code === "string") said.code = own.code;
    said.traceback = trace(own);
  }
  write(said);
}

// The stack as the user's own code sees it.
function trace(error) {
  const lines = String(error.stack ?? error).split("\n");
  const kept = lines.filter((line) => !/^\s+at /.test(line) || !(line.includes(__filename) || /\(?node:/.test(line)));
  return kept.join("\n").slice(0, MOST_TRACE);
}

// A placeholder that is a whole string is a lookup; its value never becomes code.
function looked(source) {
  const text = source.replace(PLACEHOLDER, (_, quote, name) => `flowkit.secret(${JSON.stringify(name)})`);
  const left = BARE.exec(text);
  if (left) {
    throw new SyntaxError(`{{{secret::${left[1]}}}} has to be a whole string: write "..." + flowkit.secret("${left[1]}")`);
  }
  return text;
}

function isModule(source) {
  return /^\s*(import\s+[\w{*"']|export\s+(default|async|function|const|let|class|\{))/m.test(source);
}

async function load(source) {
  const name = path.join(process.cwd(), job.file);
  if (isModule(source)) {
    const text = `${source}\n//# sourceURL=${job.file}`;
    const found = await import(`data:text/javascript;base64,${Buffer.from(text).toString("base64")}`);
    return found.main ?? found.default;
  }
  const module = new Module(name, null);
  module.filename = name;
  module.paths = Module._nodeModulePaths(process.cwd());
  const after = "\n;if (typeof main === 'function' && !module.exports.main) module.exports.main = main;";
  module._compile(source + after, name);
  return module.exports.main ?? (typeof module.exports === "function" ? module.exports : undefined);
}

async function run() {
  process.env.HOME = process.env.TMPDIR = process.cwd();
  if (job.traceparent) process.env.TRACEPARENT = job.traceparent;
  globalThis.flowkit = flowkit;
  const main = await load(looked(job.source));
  if (typeof main !== "function") throw new BadOutput("the code ended without a result: define main(inputs)");
  const value = await main(flowkit.inputs);
  give(typeof value?.next === "function" ? await handOn(value) : value);
}

process.on("uncaughtException", (error) => {
  fail(error);
  process.exit(0);
});

run().catch(fail).finally(() => process.exit(0));
