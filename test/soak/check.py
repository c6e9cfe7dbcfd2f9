#!/usr/bin/env python3
"""Check the history of a soak run.

    check.py DIRECTORY

Knows lists, times, and which token came with which write, and nothing of the
extension.  DIRECTORY has what clients.c and nemesis.pl wrote down, each file sorted by
its first column, a time; they are gone through together, once.  Beside them "final"
has what the last primary holds in the end, which tells which writes have survived:
"key value,value,..." a line; "final.b" and so on what the standbys hold.

What a read is owed is said by the values that must be in the list it returned:
- by the token of a write: that write, and what had been acknowledged before it was sent;
- by the token of a read: what that read had seen and been owed;
- strong, or on the primary: what had been acknowledged, or seen there, before it was sent;
- bounded: the same, so many ms earlier.

Prints each property with the number of violations and the first few of them, then what
is allowed and was met, and ends with 1 if there was a violation.
"""

import heapq
import os
import sys
from bisect import bisect_left, bisect_right
from collections import Counter, deque

SLACK = 3.0             # s: what a busy machine may add to a timeout
ASLEEP = 1.0            # s: who has not woken so long after others have seen his target sleeps
HELD = 1.0              # s: a waiter that has been seen with something for so long holds it
FORGET = 180.0          # s: after which nobody has a read's token, or still waits
EARLY = 0.005           # s
PATIENT = 2000          # ms: a timeout that nothing exceeds while nothing is broken
SHOWN = 5               # violations of a property that are printed

PROPERTIES = (
    'read your writes by token',
    'monotonic reads across servers',
    'writes follow reads (a token handed to another client)',
    'strong reads per key in real time',
    'reads on the primary per key in real time',
    'bounded reads are not older than their bound',
    'staleness is never understated',
    'a lost write is never answered yes',
    'a surviving write is never called lost',
    'no wait beyond its timeout',
    'no time-out before its time',
    'none sleeps although its target is replayed',
    'waiters hold neither xmin nor virtual transaction',
    'nothing is left over',
    'nothing fails while nothing is broken',
    'every server recovers',
    'no unexpected error',
    'no acknowledged write is lost without a failover or crash',
    'lists are what was appended, once and in order',
    'all servers hold the same in the end',
)

# What a read may end with, beside its answer and a time-out.  FATAL errors show as a
# broken connection.
ERRORS = {
    '40000': 'lost, or rolled back',
    '40001': 'gives way to replay, or cancelled by it',
    '40P01': 'deadlock',
    '55000': 'recovery ended',
    '22023': 'not of this primary',
    '55P03': 'lock_timeout',
    '57014': 'cancelled by replay',
}
# what nothing of the client's can be lost in
OWN_NOTHING = ('plain', 'primary', 'strong', 'bounded', 'staleness')


class Key:
    """One list: what survives of it, and what had been acknowledged and seen when."""

    def __init__(self, final):
        self.text = final
        self.values = final.split(',') if final else []
        self.place = {value: i for i, value in enumerate(self.values)}
        self.acknowledged = ([], [])    # times, and the place of the last value that is required from then on
        self.shown = ([], [])           # the same for what standbys have shown
        self.lost = {}                  # acknowledged, not in "final", and no failover or crash since: time
        self.seen = {}                  # by server: (time, number of values) of reads

    @staticmethod
    def note(timeline, time, place):
        times, places = timeline
        if not places or place > places[-1]:
            times.append(time)
            places.append(place)

    @staticmethod
    def required(timeline, time):
        """The place of the last value that had been noted before; -1 if none."""
        i = bisect_left(timeline[0], time)
        return timeline[1][i - 1] if i else -1


class Write:
    __slots__ = ('key', 'value', 'begin', 'client', 'unflushed')

    def __init__(self, key, value, begin, client, unflushed):
        self.key, self.value, self.begin, self.client, self.unflushed = key, value, begin, client, unflushed


class Seen:
    """What the token of a read stands for: values by key, and all that was acknowledged before a time."""
    __slots__ = ('floor', 'begin', 'client')

    def __init__(self, floor, begin, client):
        self.floor, self.begin, self.client = floor, begin, client


class Checker:
    def __init__(self, final):
        self.keys = {key: Key(text) for key, text in final.items()}
        self.found = {name: [] for name in PROPERTIES}
        self.count = Counter()          # violations
        self.allowed = Counter()
        self.ways = {}                  # operations by way: Counter of outcomes
        self.errors = Counter()
        self.tokens = {}                # of writes
        self.read_tokens = {}           # of reads
        self.by_age = deque()           # the latter, oldest first
        self.positions = {}
        self.xids = {}
        self.attempts = {}              # values that have not survived: outcome
        self.survivors = {}             # their outcomes, if not "ok"
        self.lost = 0
        self.shown_lost = {}            # lost values that somebody has read
        self.crashes = []               # when the primary went down
        self.stops = {}                 # by server, '*' for the machine: [begin, end] of what had been stopped
        self.peace = None               # since when nothing is broken
        self.waiting = {}               # (server, pid): [target, last seen, reached since, held since]
        self.used = {}                  # (server, pid): when a connection was last seen to work
        self.checked = 0

    def violation(self, name, line):
        self.count[name] += 1
        if len(self.found[name]) < SHOWN:
            self.found[name].append(line)

    def key(self, key):
        if key not in self.keys:
            self.keys[key] = Key('')
        return self.keys[key]

    def stopped(self, server, begin, end):
        """For how much of that time something there had been stopped."""
        total = 0.0
        # behind PgBouncer it is not known which
        for who in self.stops if server == '?' else ('*', server):
            for since, until in reversed(self.stops.get(who, ())):
                if until is not None and until < begin - 60:
                    break
                overlap = min(end, until if until is not None else end) - max(begin, since)
                if overlap > 0:
                    # and a moment to go on
                    total += overlap + 0.5
        return total

    # ---- lines ----

    def write(self, line, fields):
        end, _, begin, client, server, pid, key_name, value, outcome, token, xid = fields
        end, begin = float(end), float(begin)
        key = self.key(key_name)
        self.ways.setdefault('write', Counter())[outcome.partition(':')[0]] += 1
        if outcome.startswith('error'):
            self.errors['write ' + outcome[6:]] += 1
        if value in key.place:
            if outcome == 'ok':
                key.note(key.acknowledged, end, key.place[value])
            else:
                self.survivors[value] = outcome
        else:
            self.attempts[value] = outcome
            if outcome == 'ok':
                self.lost += 1
                key.lost[value] = (begin, end)
        if outcome != 'ok':
            return
        if token == '-':
            self.violation('no unexpected error', line)
            return
        write = Write(key, value, begin, client, '~' in token)
        self.tokens[token] = write
        self.positions[token.partition('@')[0]] = write
        self.xids.setdefault(xid, []).append(write)

    def target(self, way, token):
        """The write or read that a token is of; None if that is not known."""
        if token == '-':
            return None
        if way == 'xid':
            writes = self.xids.get(token, ())
            return writes[0] if len(writes) == 1 else None
        if way == 'pg_lsn':
            return self.positions.get(token) or self.read_tokens.get(token)
        return self.tokens.get(token) or self.read_tokens.get(token)

    def read(self, line, fields):
        end, _, begin, client, server, pid, way, key_name, token, timeout, bound, outcome, after, text = fields
        end, begin = float(end), float(begin)
        key = self.key(key_name)
        kind, _, sqlstate = outcome.partition(':')
        self.ways.setdefault(way, Counter())[kind] += 1
        target = self.target(way, token)
        lost = isinstance(target, Write) and target.value not in target.key.place
        took = end - begin
        if took > ASLEEP:
            took -= self.stopped(server, begin, end)

        if kind == 'hung' or (kind != 'broken' and took > int(timeout) / 1000 + SLACK):
            self.violation('no wait beyond its timeout', line)
        if kind == 'timeout' and way != 'staleness' and end - begin < int(timeout) / 1000 - EARLY:
            self.violation('no time-out before its time', line)
        if took > ASLEEP and target and not lost:
            self.look_for_sleeper(line, target, server, begin, end)

        if kind == 'error':
            self.errors[way + ' ' + sqlstate] += 1
            if sqlstate not in ERRORS or (sqlstate == '40000' and way in OWN_NOTHING):
                self.violation('no unexpected error', line)
            elif sqlstate == '40000' and isinstance(target, Write) and not lost:
                self.violation('a surviving write is never called lost', line)
        if self.peace is not None and begin > self.peace and (
                kind == 'hung' or (kind == 'broken' and self.used.get((server, pid), 0) > self.peace) or (kind == 'error' and sqlstate not in ('40000', '40001', '40P01', '55P03')) or
                (kind == 'timeout' and int(timeout) >= PATIENT)):
            if kind == 'timeout' and (lost or (target is None and way == 'xid')):
                self.allowed['positions and ids of lost writes that were waited for'] += 1
            else:
                self.violation('nothing fails while nothing is broken', line)
        if kind == 'ok':
            self.used[server, pid] = end
            self.checked += 1
            self.judge(line, end, begin, client, server, way, key_name, key, token, target, lost, bound, after, text)

    def look_for_sleeper(self, line, target, server, begin, end):
        """Had somebody else seen there what was waited for, long before the end?"""
        if isinstance(target, Write):
            places = {target.key: target.key.place[target.value]}
        else:
            places = target.floor
        since = begin
        for key, place in places.items():
            seen = key.seen.get(server, ())
            for time, n in seen:
                if time > begin and n > place:
                    since = max(since, time)
                    break
            else:
                return
        # what a read saw tells nothing of the position that it was given
        if isinstance(target, Write) and end - since - self.stopped(server, since, end) > ASLEEP:
            self.violation('none sleeps although its target is replayed', line)

    def parse(self, line, key, text):
        """How many values of the surviving list were returned, and which that have been lost."""
        if text == '-':
            return 0, ()
        if key.text.startswith(text) and (len(text) == len(key.text) or key.text[len(text)] == ','):
            return text.count(',') + 1, ()
        values = text.split(',')
        n = 0
        while n < len(values) and n < len(key.values) and values[n] == key.values[n]:
            n += 1
        rest = values[n:]
        if len(set(rest)) != len(rest) or any(value in key.place for value in rest):
            self.violation('lists are what was appended, once and in order', line)
        for value in rest:
            self.shown_lost.setdefault(value, line)
        return n, rest

    def judge(self, line, end, begin, client, server, way, key_name, key, token, target, lost, bound, after, text):
        n, rest = self.parse(line, key, text)
        if server != '?':
            seen = key.seen.setdefault(server, deque())
            seen.append((end, n))
            while seen[0][0] < end - FORGET:
                seen.popleft()

        # in real time
        if way in ('strong', 'bounded', 'staleness', 'primary'):
            when = begin if way == 'primary' else begin - float(bound) / 1000
            name = {'strong': 'strong reads per key in real time',
                    'primary': 'reads on the primary per key in real time',
                    'bounded': 'bounded reads are not older than their bound',
                    'staleness': 'staleness is never understated'}[way]
            if n <= key.required(key.acknowledged, when):
                self.violation(name, line)
            for value, (_, time) in key.lost.items():
                if time < when and value not in rest:
                    self.violation(name, line)
                    break
            if way == 'strong' and n <= key.required(key.shown, begin):
                self.allowed['long fork: strong reads without what a standby had shown, but not the primary'] += 1
        if way == 'primary':
            key.note(key.acknowledged, end, n - 1)
        else:
            key.note(key.shown, end, n - 1)

        # by token
        floor = {}
        since = 0.0
        if isinstance(target, Write):
            own = target.client == client
            since = target.begin
            if target.key is key:
                if not lost:
                    if n <= key.place[target.value]:
                        self.violation(self.name_of(way, own), line)
                elif target.value not in rest:
                    self.lost_yes(line, way, target)
            if not lost:
                floor[target.key] = target.key.place[target.value]
            if n <= key.required(key.acknowledged, since):
                self.violation(self.name_of(way, own), line)
        elif target:
            own = target.client == client
            floor = dict(target.floor)
            since = target.begin
            if n <= max(floor.get(key, -1), key.required(key.acknowledged, since)):
                self.violation('monotonic reads across servers' if own else 'writes follow reads (a token handed to another client)', line)
        elif token != '-' and way != 'xid':
            self.allowed['tokens that are not known any more'] += 1

        if after != '-':
            floor[key] = max(floor.get(key, -1), n - 1)
            if len(floor) > 8:
                del floor[next(iter(floor))]
            before = self.read_tokens.get(after)
            if before:
                # the same position: both are true of it
                for other, place in before.floor.items():
                    floor[other] = max(floor.get(other, -1), place)
                since = max(since, before.begin)
            else:
                self.by_age.append((end, after))
            # some ask for the position alone
            self.read_tokens[after] = self.read_tokens[after.partition('@')[0]] = Seen(floor, since, client)
            while self.by_age and self.by_age[0][0] < end - FORGET:
                old = self.by_age.popleft()[1]
                self.read_tokens.pop(old, None)
                self.read_tokens.pop(old.partition('@')[0], None)

    @staticmethod
    def name_of(way, own):
        return 'read your writes by token' if own else 'writes follow reads (a token handed to another client)'

    def lost_yes(self, line, way, target):
        if way in ('pg_lsn', 'xid'):
            self.allowed['positions and ids, which know no timeline, of lost writes that were answered yes'] += 1
        elif target.unflushed and self.crashes and self.crashes[-1] > target.begin:
            self.allowed['unflushed writes, lost in a crash, that were answered yes'] += 1
        else:
            self.violation('a lost write is never answered yes', line)

    def waiter(self, line, fields):
        at, _, server, pid, target, reached, xmin, vxid = fields
        at = float(at)
        entry = self.waiting.get((server, pid))
        if not entry or entry[0] != target or at - entry[1] > HELD:
            entry = self.waiting[server, pid] = [target, at, None, None]
        entry[1] = at
        for i, holds, limit, name in ((2, reached == '1', SLACK, 'none sleeps although its target is replayed'),
                                      (3, xmin == '1' or vxid == '1', HELD, 'waiters hold neither xmin nor virtual transaction')):
            if not holds:
                entry[i] = None
            elif entry[i] is None:
                entry[i] = at
            elif at - entry[i] > limit and at - entry[i] - self.stopped(server, entry[i], at) > limit:
                self.violation(name, line)
                entry[i] = at

    def event(self, line, fields):
        at, kind, server = float(fields[0]), fields[2], fields[3] if len(fields) > 3 else '-'
        if kind == 'stop':
            self.stops.setdefault(server, []).append([at, None])
        elif kind == 'go':
            for stop in self.stops.get(server, ()):
                if stop[1] is None:
                    stop[1] = at
        elif kind == 'primary_down':
            self.crashes.append(at)
            for key in self.keys.values():
                key.lost.clear()
        elif kind == 'peace':
            self.peace = at
        elif kind == 'unrest':
            self.peace = None
        elif kind == 'leftover':
            self.violation('nothing is left over', line)
        elif kind == 'unrecovered':
            self.violation('every server recovers', line)
        elif kind == 'crashed':
            self.violation('no unexpected error', line)

    def line(self, line):
        fields = line.split()
        kind = fields[1]
        if kind == 'R':
            self.read(line, fields)
        elif kind == 'W':
            self.write(line, fields)
        elif kind == 'Q':
            self.waiter(line, fields)
        elif kind == 'N':
            self.event(line, fields)
        elif kind == 'H':
            self.stops.setdefault('*', []).append([float(fields[2]), float(fields[0])])
        else:
            raise ValueError('no line of a history: ' + line)

    # ---- the end ----

    def finish(self, standbys):
        for name, final in standbys.items():
            for key in sorted(final.keys() | self.keys.keys()):
                is_, should = final.get(key, ''), self.keys[key].text if key in self.keys else ''
                if is_ != should:
                    self.violation('all servers hold the same in the end', f'{name}: {key} {is_}, not {should}')
        for key_name, key in self.keys.items():
            if len(key.place) != len(key.values):
                self.violation('lists are what was appended, once and in order', f'final: {key_name} {key.text}')
            for value in key.lost:
                self.violation('no acknowledged write is lost without a failover or crash', f'{key_name}: {value}')
        for value, line in self.shown_lost.items():
            if self.attempts.get(value, 'error').startswith('error'):
                self.violation('lists are what was appended, once and in order', f'nobody committed {value}: {line}')
        for value, outcome in self.survivors.items():
            if outcome.startswith('error'):
                self.violation('lists are what was appended, once and in order', f'final: {value}, which ended with {outcome}')
            else:
                self.allowed['unacknowledged commits that have survived'] += 1
        self.allowed['acknowledged writes that a failover or crash has lost'] += self.lost
        if self.lost == 0:
            del self.allowed['acknowledged writes that a failover or crash has lost']

    def report(self):
        kinds = ('ok', 'timeout', 'error', 'broken', 'hung')
        print(f"{'way':<12}" + ''.join(f'{kind:>11}' for kind in kinds))
        for way, counts in sorted(self.ways.items()):
            print(f'{way:<12}' + ''.join(f'{counts[kind]:>11,}' for kind in kinds))
        print('\nErrors: ' + (', '.join(f'{error} {n:,}' for error, n in sorted(self.errors.items())) or 'none'))
        print(f'\n{self.checked:,} reads checked\n')
        for name in PROPERTIES:
            print(f"{'ok       ' if not self.count[name] else 'VIOLATED '} {name}" + (f': {self.count[name]:,}' if self.count[name] else ''))
            for line in self.found[name]:
                print('          ' + line.rstrip()[:300])
        print('\nAllowed:' + ('' if self.allowed else ' nothing was met'))
        for name, n in sorted(self.allowed.items()):
            print(f'{n:>9,} {name}')
        return 1 if sum(self.count.values()) else 0


def read_final(path):
    with open(path, encoding='ascii') as file:
        return {key: text for key, text in (line.split() for line in file)}


def timed(path):
    """The lines of a file with their times."""
    with open(path, encoding='ascii') as file:
        for line in file:
            yield float(line[:line.index(' ')]), line


def main(directory):
    names = sorted(os.listdir(directory))
    checker = Checker(read_final(os.path.join(directory, 'final')))
    histories = [timed(os.path.join(directory, name)) for name in names if not name.startswith('final') and not name.endswith('.log')]
    for _, line in heapq.merge(*histories):
        checker.line(line)
    checker.finish({name[6:]: read_final(os.path.join(directory, name)) for name in names if name.startswith('final.')})
    return checker.report()


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
