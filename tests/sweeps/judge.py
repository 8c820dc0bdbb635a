"""What is wrong with an account, if anything.

What is to be said about a recipient follows from four questions, none of which the client is
asked: was a yes to the whole content handed to it, was a no, did the end of the content leave,
and did the server take responsibility? (The outcome table of docs/reliability.md.)

What cannot be known. Replies have no names: which one answers which command is known by counting,
never by what it says. So a server that says one reply too many *while several are owed* is
believed: what it says to one recipient is taken for the next one's, and a client that guessed
from codes and texts would be wrong about servers that are right. What is asked of a client then,
and checked here (`_by_count`), is this:

* each reply it reports is the one that belongs there by count, so the server did say that in the
  place of the answer;
* a message is sent by DATA to nobody but after a 3yz that counts as the answer to DATA, so with
  DATA no shift inside an envelope can make a yes to the content; by BDAT it can, for there
  everything is owed at once;
* the damage ends where nothing is owed: a reply that is left over then is seen, and from that
  octet on nothing more is written on this connection;
* every other message is reported exactly.

Rules of this room:

* A problem has a kind, and the kinds are what the figures count.
* Where a server's replies are in step, the account must be exactly right, not merely safe.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import NamedTuple

from aiosmtpclient import Delivery, RecipientOutcome, SMTPTimeoutError

from .behaviours import BEHAVIOURS, Endless
from .post import BAD, SENDER, Conversation, Said, Slot, address, ends_of
from .scenarios import TIMEOUTS
from .trial import AFTER, Played, Told

ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = (
    Delivery.ACCEPTED,
    Delivery.REFUSED,
    Delivery.NOT_SENT,
    Delivery.UNKNOWN,
)
PATIENCE = 1.0
"""Seconds by which a deadline may be missed."""


class Problem(NamedTuple):
    """Something that must not be.

    Attributes:
        kind: "hang", "leak", "mispaired", "wrong class", "twice", "harm" (done to a server), "late"
            or "foreign".
    """

    kind: str
    text: str


class Facts(NamedTuple):
    """What happened to one recipient of one message, as the server and the cable know it.

    Attributes:
        yes: a 2yz to the whole content, in its place, was handed to the client.
        no: a 4yz or 5yz in the place of MAIL, RCPT, DATA or the content was, or a 421 in this message.
        left: the end of the content was handed to the transport.
        taken: how often the server took responsibility.
        said_no: such a no was said at all.
        strange: a reply of a class that cannot be there was said to this message.
        farewell: a 421 that answers nothing, or RSET, was heard on a connection that it was written to. It
            refuses whatever is the oldest without an answer.
    """

    yes: bool
    no: bool
    left: bool
    taken: int
    said_no: bool
    strange: bool
    farewell: bool


class Judgement(NamedTuple):
    """What came of looking at it.

    Attributes:
        problems: what must not be.
        by_count: accounts that follow the server's words by count, not what it meant by them.
    """

    problems: list[Problem]
    by_count: int


def judge(played: Played) -> Judgement:
    """Look at everything."""
    if played.stuck:
        return Judgement([Problem("hang", played.stuck)], 0)
    problems = [Problem("leak", what) for what in played.left]
    problems += [Problem("foreign", what) for what in played.foreign]
    problems += [Problem("harm", what) for what in harm(played)]
    by_count = 0
    for error in played.opening:
        if getattr(error, "delivery", None) is not NOT_SENT:
            problems.append(Problem("wrong class", f"connecting failed: {error!r}"))
    for number in played.numbers:
        told = played.told.get(number)
        if told is None:
            problems.append(Problem("hang", f"nothing was told about message {number}"))
            continue
        found, shifted = _message(played, number, told)
        problems += found
        by_count += shifted
    problems += _surplus(played)
    problems += _farewells(played)
    problems += _in_the_end(played)
    return Judgement(problems, by_count)


def harm(played: Played) -> list[str]:
    """What was done to the server; one that has lost its place itself cannot complain."""
    return played.post.wrong if in_step(played) else []


def in_step(played: Played) -> bool:
    behaviour = BEHAVIOURS.get(played.trial.behaviour)
    return behaviour is None or behaviour.in_step


def disturbed(played: Played, number: int) -> bool:
    """The replies to this message may not be where they belong."""
    if in_step(played):
        return False
    first, place = played.post.connections[0], played.trial.place
    restored = BEHAVIOURS[played.trial.behaviour].count == "swapped" and not played.trial.scenario.lmtp
    last = place + 1 if restored else len(first.slots)  # in LMTP whom RCPT took decides about the count
    return any(slot.message == number and place <= slot.number <= last for slot in first.slots)


def _message(played: Played, number: int, told: Told) -> tuple[list[Problem], int]:
    scenario = played.trial.scenario
    names = scenario.names()
    if [outcome.address for outcome in told.outcomes] != [address(name, number) for name in names]:
        return [Problem("mispaired", f"message {number} has outcomes {told.outcomes}")], 0
    problems, shifted = [], 0
    for name, outcome in zip(names, told.outcomes, strict=True):
        facts = facts_of(played, number, name)
        if facts.taken > 1:
            problems.append(Problem("twice", f"{name} got message {number} {facts.taken} times"))
        if disturbed(played, number):
            found, by_count = _by_count(played, number, name, outcome, facts)
            problems += found
            shifted += by_count
            continue
        wanted = expected(facts)
        if facts.farewell and outcome.reply is not None and outcome.reply.code == 421:
            wanted.append(REFUSED)
        if isinstance(told.error, asyncio.CancelledError) and (facts.no or not facts.left):
            wanted.append(NOT_SENT)  # a no may come with the cancellation, or belong to another attempt
        if _behind_chunks(played) and not facts.left:
            wanted.append(NOT_SENT)  # behind a refused chunk nobody knows whom a reply is for
        if _out_of_sight(played) and not facts.left:
            wanted.append(UNKNOWN)  # the end was written, only nobody read it
        if _nameless(played, number) and facts.left:
            wanted.append(UNKNOWN)  # what is behind it is not looked at, also if it is here already
        if outcome.delivery is NOT_SENT and facts.taken:
            problems.append(Problem("wrong class", f"message {number}, {name}: not sent, and taken"))
        if outcome.delivery not in wanted:
            text = (
                f"message {number}, {name}: {outcome.delivery}, not {' or '.join(map(str, wanted))}; {facts}"
            )
            problems.append(Problem("wrong class", text))
        problems += _paired(played, number, name, outcome)
    problems += _whole(number, told)
    problems += _in_time(number, told)
    return problems, shifted


def _behind_chunks(played: Played) -> bool:
    """In LMTP a chunk may have been refused, and behind it stands the envelope of another message."""
    scenario = played.trial.scenario
    in_chunks = scenario.chunking != "off" and scenario.size != "small"
    return scenario.lmtp and scenario.at_once and in_chunks and bool(played.trial.behaviour)


def _out_of_sight(played: Played) -> bool:
    """A server that falls silent reads no more, and inside TLS nobody else sees what was written to it."""
    cut = getattr(played.trial, "cut", None)  # only a trial of the cancel sweep has one
    return cut is not None and cut.how == "silence" and getattr(played.trial, "security", "") != "plain"


def _nameless(played: Played, number: int) -> bool:
    """Nobody knows whom in LMTP, by BDAT, the replies are for that come behind this one.

    A 503 to BDAT is the only reply, or the first recipient's. Where a 3yz answers MAIL or RCPT, it is not
    known for whom there will be a reply to the content.
    """
    scenario, trial, slots = played.trial.scenario, played.trial, played.post.connections[0].slots
    if not scenario.lmtp or scenario.chunking == "off":
        return False
    if trial.behaviour not in ("says 503 instead", "says go on instead"):
        return False
    where = next((slot.message for slot in slots if slot.number == trial.place), None)
    stream = scenario.pipelining == "stream"
    return where is not None and (number == where or (stream and number > where > 0))


def expected(facts: Facts) -> list[Delivery]:
    """What may be said about a recipient; one thing, where the server kept to the protocol."""
    if facts.strange:
        # Nobody has to believe a server that breaks the protocol, but nobody may say what is not so.
        wanted = [UNKNOWN if facts.left else NOT_SENT]
        wanted += [ACCEPTED] * (facts.yes and facts.taken > 0) + [REFUSED] * facts.no
        return wanted
    if facts.yes:
        return [ACCEPTED]
    if facts.no:
        return [REFUSED]
    return [UNKNOWN if facts.left else NOT_SENT]


def _by_count(
    played: Played, number: int, name: str, outcome: RecipientOutcome, facts: Facts
) -> tuple[list[Problem], int]:
    """An account of a message whose replies are out of step."""
    delivery, reply = outcome.delivery, outcome.reply
    what = f"message {number}, {name}: {delivery} by {reply}; {facts}"
    if delivery is NOT_SENT:
        return ([Problem("wrong class", what)] if facts.left or facts.taken else []), 0
    if delivery is UNKNOWN:
        return ([] if facts.left else [Problem("wrong class", what)]), 0
    if (delivery is ACCEPTED and facts.taken) or (delivery is REFUSED and facts.said_no and not facts.taken):
        return [], 0
    said, slot = _reported(played, number, reply)
    if said is None or slot is None or slot.message != number:
        return [Problem("mispaired", what)], 0
    if slot.verb == "RCPT" and name not in slot.names and not _is_loose(played):
        return [Problem("mispaired", what)], 0
    yes = said.code // 100 == 2
    if (delivery is ACCEPTED) != yes or (yes and not _may_shift(played, slot)):
        return [Problem("wrong class", what)], 0
    return [], 1


def _may_shift(played: Played, slot: Slot) -> bool:
    """A yes that was not meant for the content may stand in the place of the answer to it.

    By DATA, one message at a time, only if it was said behind the 354: before that every shift
    puts something else than a 3yz in the place of the answer to DATA.
    """
    scenario, first = played.trial.scenario, played.post.connections[0]
    if slot.verb != "end":
        return False
    if scenario.chunking != "off" or scenario.at_once or slot.taken:
        return True  # where it was taken, only for whom was mistaken
    data = max(one.number for one in first.slots[: slot.number] if one.verb == "DATA")
    return played.trial.place >= data or any(said.slot is None and said.number > data for said in first.said)


def _is_loose(played: Played) -> bool:
    """What the server counts, and what the client does, may differ by more than what was too many."""
    swallows = any(isinstance(act, Endless) for act in BEHAVIOURS[played.trial.behaviour].acts)
    return played.trial.scenario.lmtp or swallows


def _reported(played: Played, number: int, reply: object) -> tuple[Said | None, Slot | None]:
    """The reply that was reported, and what it answers by count."""
    found = re.search(rb"#(\d+) ", getattr(reply, "message", b"") + b" ")
    if found is None:
        return None, None
    at = int(found[1])
    for conversation in reversed(played.post.connections):
        if any(slot.message == number for slot in conversation.slots) and at < len(conversation.said):
            # In LMTP the two sides may differ in how many replies the content before this one earned,
            # and lines without end swallow the reply behind them.
            spread = (0, -1, 1, -2, 2) if _is_loose(played) else (0,)
            near = [at + step for step in spread if 0 <= at + step < len(conversation.slots)]
            slots = [conversation.slots[where] for where in near]
            mine = [slot for slot in slots if slot.message == number]
            return conversation.said[at], next(iter([*mine, *slots]), None)
    return None, None


def _paired(played: Played, number: int, name: str, outcome: RecipientOutcome) -> Iterator[Problem]:
    """The reply that is reported for a recipient was said to that recipient."""
    reply = outcome.reply
    text = reply.message.decode("utf-8", "replace") if reply is not None else ""
    said = re.search(r"#\d+ (m\d+ \w+(?: \w+)*|extra)", text)
    if reply is None or said is None:
        if outcome.delivery in (ACCEPTED, REFUSED) and reply is None:
            yield Problem("mispaired", f"message {number}, {name}: {outcome.delivery} without a reply")
        return
    words = said[1].split()
    if reply.code == 421 and (words[0] in ("extra", f"m{number}") or words[1] == "RSET"):
        return
    if words[0] != f"m{number}" or (len(words) > 2 and name not in words[2:]):
        yield Problem("mispaired", f"message {number}, {name}: {text}")


def _whole(number: int, told: Told) -> Iterator[Problem]:
    """The account in one word agrees with that of each, and the reply is one of theirs."""
    order = (UNKNOWN, ACCEPTED, NOT_SENT, REFUSED)
    words = {outcome.delivery for outcome in told.outcomes}
    wanted = ACCEPTED if told.error is None else min(words, key=order.index)
    if told.delivery is not wanted:
        yield Problem("wrong class", f"message {number} is {told.delivery}, its recipients {words}")
    if told.error is None and ACCEPTED not in words:
        yield Problem("wrong class", f"message {number} was reported as sent: {words}")
    if told.reply is not None and told.reply not in [outcome.reply for outcome in told.outcomes]:
        yield Problem("mispaired", f"message {number}: {told.reply}")


def _in_time(number: int, told: Told) -> Iterator[Problem]:
    """Nobody waited longer than for what he waited for."""
    most = max(seconds for seconds in TIMEOUTS if seconds is not None)
    if isinstance(told.error, SMTPTimeoutError):
        phase = told.error.phase
        most = {"connect": TIMEOUTS.connect, "content": TIMEOUTS.write, "end of content": TIMEOUTS.final}.get(
            phase, TIMEOUTS.reply
        ) or 0.0
        if phase == "BDAT":
            most = 10.0  # the trial of CHUNKING has its own
    if told.idle > most + PATIENCE:
        yield Problem("late", f"message {number}: nothing moved for {told.idle:g} s, then {told.error!r}")


def _surplus(played: Played) -> Iterator[Problem]:
    """Nothing is written on a connection that said more than it was asked for.

    The count of what was written is the server's, so what was on its way counts too.
    """
    for number, conversation in enumerate(played.post.connections):
        where = conversation.line.surplus_at
        if where is not None and len(conversation.line.written) > where:
            rest = bytes(conversation.line.written[where:])
            yield Problem(
                "mispaired", f"written on connection {number} after a reply too many: {rest[:60]!r}"
            )


# -- what happened -------------------------------------------------------------------------


def facts_of(played: Played, number: int, name: str) -> Facts:
    """What happened to this recipient, on whichever connections."""
    yes = no = left = said_no = strange = farewell = False
    told = played.told.get(number)
    heard = told.heard if told is not None else None
    for which, conversation in enumerate(played.post.connections):
        line = conversation.line
        begun = line.written.rfind(_mail_of(number))
        if begun >= 0:  # what was said to an attempt before this one is forgotten
            yes = no = left = strange = farewell = False
        left = left or any(end > begun for end in ends_of(bytes(line.written), number))
        mails = [slot.number for slot in conversation.slots if (slot.verb, slot.message) == ("MAIL", number)]
        newest = max(mails, default=0)  # a message that BDAT was refused for goes by DATA then
        until = _last_words(conversation)
        if heard is not None:
            until = min(until, heard[which] if which < len(heard) else 0)
        for slot in conversation.slots:
            if slot.message != number or slot.verb == "RSET" or slot.number < newest:
                continue
            mine = not slot.names or name in slot.names
            for said in slot.said:
                known = said.ends <= until
                strange = strange or (known and _is_strange(slot, said))
                refuses = said.code >= 400 and (mine or (said.code == 421 and slot.verb != "end"))
                said_no = said_no or refuses
                no = no or (known and refuses)
                agrees = said.code // 100 == 2 and slot.verb == "end" and slot.complete and mine
                yes = yes or (known and agrees)
        farewell = farewell or _farewell_in(conversation, number)
    taken = played.post.taken[number, name]
    return Facts(yes, no, left, taken, said_no or farewell, strange, farewell)


def _last_words(conversation: Conversation) -> int:
    """Octets that count: what was handed over, up to the first 421, or what is no reply."""
    delivered = conversation.line.delivered
    if conversation.garbled:
        delivered = min(delivered, conversation.garbled)
    farewells = (said.ends for said in conversation.said if said.code == 421 and said.ends <= delivered)
    return min(farewells, default=delivered)


def _is_strange(slot: Slot, said: Said) -> bool:
    return (said.code // 100 == 3) != (slot.verb == "DATA") and said.code < 400


def _mail_of(number: int) -> bytes:
    return f"MAIL FROM:<{SENDER.format(number)}>".encode()


def _farewell_in(conversation: Conversation, number: int) -> bool:
    line = conversation.line
    if _mail_of(number) not in line.written:
        return False
    return any(
        said.code == 421 and said.ends <= line.delivered and (said.slot is None or said.slot.verb == "RSET")
        for said in conversation.said
    )


def _farewells(played: Played) -> Iterator[Problem]:
    """A 421 refuses one message: those behind it were not answered."""
    told = [
        (number, reply.message)
        for number, one in played.told.items()
        for reply in {outcome.reply for outcome in one.outcomes}
        if reply is not None and reply.code == 421 and re.search(rb" extra| RSET", reply.message)
    ]
    if len(told) > 1:
        yield Problem("mispaired", f"one 421 refuses {told}")


def _in_the_end(played: Played) -> Iterator[Problem]:
    """The last message met a server that is right, whatever was before."""
    last = played.numbers[-1] if played.numbers else 0
    if last not in AFTER or last not in played.told:
        return
    for name, outcome in zip(played.trial.scenario.names(), played.told[last].outcomes, strict=False):
        if outcome.delivery is not (REFUSED if name == BAD else ACCEPTED):
            yield Problem("wrong class", f"message {last}, the last, {name}: {outcome.delivery}")
