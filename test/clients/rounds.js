// What rounds.py does, with node-postgres.
//
//	rounds.js PRIMARY STANDBY ROUNDS
const { Client } = require("pg");

const [primaryUri, standbyUri, rounds] = process.argv.slice(2);
const primary = new Client({ connectionString: primaryUri });
const standby = new Client({ connectionString: standbyUri });
let token;
let last = 0;

primary.connection.on("parameterStatus", (message) => {
  if (message.parameterName === "lsn_tracker.token") token = message.parameterValue;
});

async function write() {
  await primary.query("INSERT INTO orders VALUES ($1)", [++last]);
}

// by a statement that the driver prepares once
async function read(client) {
  const result = await client.query({
    name: "read",
    text: "SELECT count(*) FROM orders WHERE id = $1",
    values: [last],
  });
  return Number(result.rows[0].count);
}

const setConfig = () => standby.query("SELECT set_config('lsn_tracker.token', $1, false)", [token]);

const ways = {
  async nothing() {
    await write();
    return read(standby);
  },
  async set_config() {
    await write();
    await setConfig();
    return read(standby);
  },
  async set_literal() {
    await write();
    await standby.query(`SET lsn_tracker.token = '${token}'`);
    return read(standby);
  },
  async in_transaction() {
    await write();
    await standby.query("BEGIN");
    await setConfig();
    const rows = await read(standby);
    await standby.query("COMMIT");
    return rows;
  },
  async repeatable_read() {
    await write();
    await setConfig();
    await standby.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    const rows = await read(standby);
    await standby.query("COMMIT");
    return rows;
  },
  async option() {
    await write();
    const client = new Client({ connectionString: standbyUri, options: `-c lsn_tracker.token=${token}` });
    await client.connect();
    const rows = await read(client);
    await client.end();
    return rows;
  },
};

async function main() {
  await primary.connect();
  await standby.connect();
  for (const [name, way] of Object.entries(ways)) {
    let stale = 0;
    for (let i = 0; i < Number(rounds); i++) if ((await way()) === 0) stale++;
    console.log(`${name}: ${rounds} reads, ${stale} stale`);
  }
  await primary.end();
  await standby.end();
}

main();
