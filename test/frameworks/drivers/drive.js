// Does as it is told, one line of standard input after the other, with what a page
// defines.
const readline = require("readline");

// postgres.js prints what the server notes, like that it is going down
console.log = console.error;

module.exports = async function drive(write, read, sqlstate = (error) => error.code) {
  const sessions = {};
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [verb, name, id] = line.split(" ");
    const session = (sessions[name] ??= {});
    let answer = "ok";
    try {
      if (verb === "write") await write(session, Number(id));
      else answer = await read(session, Number(id));
    } catch (error) {
      if (!sqlstate(error)) throw error;
      answer = `error ${sqlstate(error)}`;
    }
    process.stdout.write(`${answer}\n`);
  }
  // the pools' idle connections are no reason to stay
  process.exit(0);
};
