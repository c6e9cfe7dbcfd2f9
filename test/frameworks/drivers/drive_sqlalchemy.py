import sys
from collections import defaultdict

import orders
from drive import drive

if "bound" in sys.argv:
    import bound

    orders.standby = bound.standby
sessions = defaultdict(dict)


def write(session, id):
    if id % 2:
        return orders.write(session, id)
    # the event for a commit comes for a savepoint's, too
    with orders.Writing(orders.primary, info={"user": session}) as work, work.begin():
        with work.begin_nested():
            work.add(orders.Order(id=id))


drive(
    lambda session, id: write(sessions[session], id),
    lambda session, id: orders.read(sessions[session], id),
    lambda error: getattr(getattr(error, "orig", None), "sqlstate", None),
)
