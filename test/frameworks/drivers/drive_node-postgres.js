const { write, read } = require("./orders.js");
const drive = require("./drive.js");

const pool = process.argv.includes("bound") ? require("./bound.js") : undefined;
drive(write, (session, id) => read(session, id, pool));
