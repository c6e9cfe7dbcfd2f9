const { write, read } = require("./orders.js");
const drive = require("./drive.js");

const bound = process.argv.includes("bound") ? require("./bound.js") : undefined;
drive(
  write,
  (session, id) => (bound ? bound(id) : read(session, id)),
  (error) => error.meta?.driverAdapterError?.cause.originalCode,
);
