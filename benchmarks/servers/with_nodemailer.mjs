// nodemailer's smtp-server with an onData that drains the stream.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { SMTPServer } from "smtp-server";

const { values: options } = parseArgs({
  options: {
    port: { type: "string" },
    tls: { type: "string", default: "none" },
    certificate: { type: "string", default: "" },
    auth: { type: "boolean", default: false },
    hook: { type: "string", default: "plain" },
  },
});

let messages = 0;
const pem = options.certificate && readFileSync(options.certificate);
const disabled = [];
if (options.tls !== "starttls") disabled.push("STARTTLS");
if (!options.auth) disabled.push("AUTH");

const server = new SMTPServer({
  name: "bench.example",
  logger: false,
  disableReverseLookup: true,
  disabledCommands: disabled,
  authOptional: true,
  allowInsecureAuth: true,
  authMethods: ["PLAIN"],
  secure: options.tls === "implicit",
  ...(pem && { key: pem, cert: pem }),
  socketTimeout: 600_000,
  size: 128 * 2 ** 20,
  onAuth(auth, session, callback) {
    const known = auth.username === "user" && auth.password === "secret";
    callback(known ? null : new Error("unknown user"), { user: auth.username });
  },
  onData(stream, session, callback) {
    stream.on("end", () => {
      messages += 1;
      if (options.hook === "wait") setImmediate(callback);
      else callback();
    });
    stream.resume();
  },
});

server.on("error", () => {}); // a connection's end, told once more; what is lost shows in the count
server.listen({ port: Number(options.port), host: "127.0.0.1", backlog: 1000 });
process.on("SIGTERM", () => {
  console.log(messages);
  process.exit(0);
});
