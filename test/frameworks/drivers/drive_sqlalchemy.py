import sys
from collections import defaultdict

import orders
from drive import drive

if "bound" in sys.argv:
    import bound

    orders.standby = bound.standby
sessions = defaultdict(dict)
drive(
    lambda session, id: orders.write(sessions[session], id),
    lambda session, id: orders.read(sessions[session], id),
    lambda error: getattr(getattr(error, "orig", None), "sqlstate", None),
)
