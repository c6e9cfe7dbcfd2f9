# Writes to one address and reads from others while servers come and go, until its input
# ends.  Prints how many writes there were and, strongly or behind a token, how many reads
# and wrong ones among them; also after each line of input, with what is there by then.
#
#		failover.py PRIMARY READERS [READERS ...]
#
# A read is wrong if it does not see what had been acknowledged when it began.  That
# somebody can't be reached, or does not answer in time, is not.
import sys
import threading
import psycopg2

WRITERS = 4
readers = sys.argv[2:]
acknowledged = [(0, "")] * WRITERS  # number, token
count = {"writes": 0, "strong": 0, "token": 0, "wrong": 0}
lock = threading.Lock()
ended = threading.Event()


def add(what):
    with lock:
        count[what] += 1


def say(text):
    with lock:
        print(text, file=sys.stderr, flush=True)


# Do it again and again, with another connection after each error
def repeat(conninfo, setting, work):
    while not ended.is_set():
        connection = None
        try:
            connection = psycopg2.connect(conninfo + " connect_timeout=5")
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(setting)
                # whoever is new gets his share
                for _ in range(50):
                    if not ended.wait(0.005):
                        work(connection, cursor)
        except psycopg2.Error as error:
            if error.pgcode == "40000":
                add("wrong")
                say(str(error))
            ended.wait(0.1)
        finally:
            if connection is not None:
                connection.close()


def writer(number):
    n = [0]

    def work(connection, cursor):
        n[0] += 1
        cursor.execute("INSERT INTO written VALUES (%s, %s)", (number, n[0]))
        acknowledged[number] = (n[0], connection.info.parameter_status("lsn_tracker.token"))
        add("writes")

    return work


def reader(what, number):
    def work(connection, cursor):
        least, token = acknowledged[number]
        if what == "token":
            cursor.execute("SELECT set_config('lsn_tracker.token', %s, false)", (token,))
        cursor.execute("SELECT coalesce(max(n), 0), current_setting('cluster_name') FROM written WHERE writer = %s", (number,))
        seen, server = cursor.fetchone()
        add(what)
        if seen < least:
            add("wrong")
            say("%s, on %s: %d of writer %d, not %d, %s" % (what, server, seen, number, least, token))

    return work


threads = []
for i in range(WRITERS):
    threads.append(threading.Thread(target=repeat, args=(sys.argv[1], "SELECT 1", writer(i))))
    threads.append(threading.Thread(target=repeat, args=(readers[i % len(readers)], "SET lsn_tracker.max_staleness = 0", reader("strong", i))))
    threads.append(threading.Thread(target=repeat, args=(readers[-1 - i % len(readers)], "SELECT 1", reader("token", i))))
for thread in threads:
    thread.start()
for line in sys.stdin:
    with lock:
        print(*("%s=%d" % item for item in count.items()), flush=True)
ended.set()
for thread in threads:
    thread.join()
print(*("%s=%d" % item for item in count.items()), flush=True)
