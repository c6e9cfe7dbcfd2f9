# Does as it is told, one line of standard input after the other, with what a page
# defines.  sqlstate(error) is the code of an error of the database, or None.
import sys


def drive(write, read, sqlstate):
    for line in sys.stdin:
        verb, session, id = line.split()
        try:
            answer = "ok" if verb == "write" else read(session, int(id))
            if verb == "write":
                write(session, int(id))
        except Exception as error:
            if not sqlstate(error):
                raise
            answer = f"error {sqlstate(error)}"
        print(answer, flush=True)
