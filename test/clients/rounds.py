# Writes on the primary and reads that on the standby, again and again, with nothing
# of lsn_tracker in it but the token: it is taken from what the primary reports, and
# set.  Prints how many reads there were in each way of setting it, and how many were
# stale.
#
#	rounds.py DRIVER PRIMARY STANDBY ROUNDS		DRIVER: psycopg2 or psycopg
import importlib
import sys

driver = importlib.import_module(sys.argv[1])
primary = driver.connect(sys.argv[2])
standby = driver.connect(sys.argv[3])
standby.autocommit = True
READ = "SELECT count(*) FROM orders WHERE id = %s"
last = 0


def write():
    global last
    last += 1
    with primary.cursor() as cursor:
        cursor.execute("INSERT INTO orders VALUES (%s)", (last,))
    primary.commit()
    return primary.info.parameter_status("lsn_tracker.token")


def read(connection, token=None):
    with connection.cursor() as cursor:
        if token:
            cursor.execute("SELECT set_config('lsn_tracker.token', %s, false)", (token,))
        cursor.execute(READ, (last,))
        return cursor.fetchone()[0]


def nothing():
    write()
    return read(standby)


def set_config():
    return read(standby, write())


def set_literal():
    with standby.cursor() as cursor:
        cursor.execute("SET lsn_tracker.token = '" + write() + "'")
    return read(standby)


def in_transaction():
    token = write()
    standby.autocommit = False
    rows = read(standby, token)
    standby.commit()
    standby.autocommit = True
    return rows


def repeatable_read():
    with standby.cursor() as cursor:
        cursor.execute("SELECT set_config('lsn_tracker.token', %s, false)", (write(),))
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        rows = read(standby)
        cursor.execute("COMMIT")
    return rows


def option():
    connection = driver.connect(sys.argv[3], options="-c lsn_tracker.token=" + write())
    rows = read(connection)
    connection.close()
    return rows


for way in nothing, set_config, set_literal, in_transaction, repeatable_read, option:
    stale = sum(way() == 0 for _ in range(int(sys.argv[4])))
    print(f"{way.__name__}: {sys.argv[4]} reads, {stale} stale")
