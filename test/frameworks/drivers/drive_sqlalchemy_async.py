import asyncio
import sys
from collections import defaultdict

import orders_async
from drive import drive

if "bound" in sys.argv:
    import bound

    orders_async.standby = bound.standby_async
sessions = defaultdict(dict)
# the connections belong to one loop
run = asyncio.new_event_loop().run_until_complete
drive(
    lambda session, id: run(orders_async.write(sessions[session], id)),
    lambda session, id: run(orders_async.read(sessions[session], id)),
    lambda error: getattr(getattr(error, "orig", None), "sqlstate", None),
)
