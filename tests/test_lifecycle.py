"""What may happen to a client or a pool besides sending: two tasks at once, loops that go, the
collector, a fork. Each has a clear result, or a clear error of ours, and nothing ever hangs.

==========================  ==============================================================
case                        where it is tested besides here
==========================  ==============================================================
send + close                `test_client.test_a_client_closed_by_one_task_fails_the_others…`
connect + send, + close     `test_client.test_a_connect_in_one_task…`, `…closed_while_it_connects…`
leaving + send              `test_client_shared.test_leaving_the_block…`
closed loop, client, pool   `test_client.test_a_client_whose_loop_is_gone…`, `test_pool.test_a_pool_whose…`
second loop                 `test_client.test_a_client_connected_in_one_loop…`, `test_pool.test_in_a_second…`
collected, still connected  `test_client.test_a_client_thrown_away…`, `test_pool.test_an_unclosed_pool…`
pool: close + anything      `test_pool`, `test_pool_cancelled`, `test_pool_bulk`
the blocking side           `test_lifecycle_blocking`, and what is named there
==========================  ==============================================================
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest
from wire import (
    BODY,
    GO,
    NEXT,
    SENDER,
    TO,
    caught,
    deliveries,
    each_loop,
    envelope,
    hello,
    mark,
    send,
    wait_for,
)

from aiosmtpclient import (
    AsyncSMTP,
    Delivery,
    SMTPNotSupportedError,
    SMTPPool,
    SMTPServerDisconnected,
    connection,
)
from aiosmtpclient.testing import CertificateAuthority, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import ehlo, expect_content, greeting, read_all, starttls


async def both(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Each from a task of its own; results, or errors."""
    return await asyncio.gather(*calls, return_exceptions=True)


# -- two tasks -------------------------------------------------------------------------------


@each_loop
async def test_connect_and_connect_leave_one_connection_and_quit_the_other() -> None:
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)

        greetings = await both(smtp.connect(), smtp.connect())

        assert [reply.code for reply in greetings] == [220, 220]
        assert (server.connections, server.commands.count("QUIT")) == (2, 1)
        assert (await send(smtp)).accepted == (TO,)
        await smtp.quit()
        assert server.commands.count("QUIT") == 2


@each_loop
@pytest.mark.parametrize(
    ("content", "word"), [(False, Delivery.NOT_SENT), (True, Delivery.UNKNOWN)], ids=["before", "behind"]
)
async def test_send_and_close_say_what_is_known_of_the_message(content: bool, word: Delivery) -> None:
    reached = asyncio.Event()
    last = [GO, expect_content(), mark(reached), read_all()] if content else [mark(reached), read_all()]
    async with ScriptedServer([*hello(), *envelope(TO), "DATA", *last]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        sending = asyncio.create_task(caught(send(smtp)))
        await reached.wait()

        smtp.close()

        error = await sending
        assert isinstance(error, SMTPServerDisconnected)
        assert deliveries(error) == [word]
        assert "closed on this side" in str(error)
        assert b"QUIT" not in server.received[0]


@each_loop
async def test_close_and_close_and_close_once_more_do_nothing() -> None:
    async with ScriptedServer([*hello(), read_all()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        smtp.close()  # not even connected
        await smtp.connect()

        async def close() -> None:
            smtp.close()

        assert await both(close(), close()) == [None, None]
        smtp.close()
        assert not smtp.is_connected
        assert isinstance(await caught(smtp.noop()), SMTPServerDisconnected)
        assert b"QUIT" not in server.received[0]


@each_loop
async def test_send_and_quit_behind_it_sends_and_then_quits() -> None:
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()

        sent, left = await both(send(smtp), smtp.quit())

        assert (sent.accepted, left.code) == ((TO,), 221)
        assert server.commands[-1] == "QUIT"


@each_loop
async def test_quit_and_send_behind_it_quits_and_says_that_nothing_was_sent() -> None:
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()

        left, error = await both(smtp.quit(), send(smtp))

        assert left.code == 221
        assert isinstance(error, SMTPServerDisconnected)
        assert deliveries(error) == [Delivery.NOT_SENT]
        assert "call connect() first" in str(error)
        assert (server.messages, server.connections) == ([], 1)


@each_loop
async def test_quit_and_quit_is_said_once() -> None:
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()

        left, error = await both(smtp.quit(), smtp.quit())

        assert left.code == 221
        assert isinstance(error, SMTPServerDisconnected)
        assert server.commands.count("QUIT") == 1


@each_loop
async def test_starttls_and_noop_behind_it_are_never_mixed() -> None:
    authority = CertificateAuthority()
    asked, go_on = asyncio.Event(), asyncio.Event()
    script = [greeting(), ehlo("STARTTLS"), "STARTTLS", mark(asked), wait_for(go_on), b"220 go\r\n"]
    script += [starttls(authority.server_context()), "NOOP", b"250 inside\r\n", "QUIT", b"221 bye\r\n"]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port, tls="none", tls_context=authority.client_context())
        await smtp.connect()
        task = asyncio.create_task(both(smtp.starttls(server_hostname="localhost"), smtp.noop()))
        await asked.wait()
        for _ in range(20):  # a noop that does not wait would be behind STARTTLS by now
            await asyncio.sleep(0)
        assert server.received[0].endswith(b"STARTTLS\r\n")
        go_on.set()

        secured, noop = await task

        assert (secured.code, noop.text) == (220, "inside")
        await smtp.quit()


@each_loop
async def test_noop_and_starttls_behind_it_wait_for_the_answer_first() -> None:
    async with MailServer(starttls=True) as server:
        context = CertificateAuthority().client_context()
        smtp = AsyncSMTP(server.host, server.port, tls="none", tls_context=context)
        await smtp.connect()

        answers = await both(smtp.noop(), smtp.starttls(server_hostname="localhost"), smtp.noop())

        assert [reply.code for reply in answers] == [250, 220, 250]
        assert [verb for verb in server.commands if verb in ("NOOP", "STARTTLS")] == [
            "NOOP",
            "STARTTLS",
            "NOOP",
        ]
        await smtp.quit()


@each_loop
async def test_login_and_send_behind_it_send_as_that_user() -> None:
    async with MailServer(users={"me": "s3cret"}, require_auth=True) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()

        welcome, sent = await both(smtp.login("me", "s3cret"), send(smtp))

        assert (welcome.code, sent.accepted) == (235, (TO,))
        assert [message.user for message in server.messages] == ["me"]
        await smtp.quit()


@each_loop
async def test_send_and_login_behind_it_keep_their_order() -> None:
    async with MailServer(users={"me": "s3cret"}) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()

        sent, welcome, again = await both(send(smtp), smtp.login("me", "s3cret"), send(smtp, NEXT))

        assert (sent.accepted, welcome.code, again.accepted) == ((TO,), 235, (NEXT,))
        assert [message.user for message in server.messages] == [None, "me"]
        await smtp.quit()


@each_loop
async def test_a_verb_that_fails_is_no_trouble_for_who_waits_behind_it() -> None:
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port, tls="none")
        await smtp.connect()

        error, noop = await both(smtp.starttls(), smtp.noop())

        assert isinstance(error, SMTPNotSupportedError)
        assert noop.code == 250
        await smtp.quit()


# -- loops that go, and second ones ----------------------------------------------------------


def opened_and_left(server: MailServer) -> AsyncSMTP:
    """A client whose loop was closed before it was."""
    smtp = AsyncSMTP(server.host, server.port)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(smtp.connect())
    loop.close()
    return smtp


LEFT = pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning",  # asyncio's own, about the transport that its loop left
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@LEFT
def test_a_client_can_be_closed_when_its_loop_is_closed_already() -> None:
    with MailServer() as server:
        smtp = opened_and_left(server)
        smtp.close()
        assert not smtp.is_connected


@LEFT
def test_a_client_whose_loop_is_closed_is_not_connected_in_the_next() -> None:
    with MailServer() as server:
        for call in (AsyncSMTP.quit, AsyncSMTP.noop):
            error = asyncio.run(caught(call(opened_and_left(server))))
            assert isinstance(error, SMTPServerDisconnected), error
            assert "call connect() first" in str(error)


@LEFT
def test_a_pool_can_be_closed_when_its_loop_is_closed_already() -> None:
    with MailServer() as server:
        pool = SMTPPool(server.host, server.port)
        asyncio.run(pool.sendmail(SENDER, TO, BODY))

        asyncio.run(pool.close())

        assert repr(pool).startswith("<SMTPPool closed")
        assert pool.stats().idle == 0


async def in_another_loop(work: Coroutine[Any, Any, Any]) -> BaseException | None:
    """Run this in a loop of another thread; the error that it ended with."""

    def run() -> BaseException | None:
        try:
            asyncio.run(work)
        except BaseException as error:
            return error
        return None

    return await asyncio.to_thread(run)


@each_loop
async def test_a_client_that_connects_in_one_loop_is_not_connected_in_another_meanwhile() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    script = [greeting(), "EHLO", mark(asked), wait_for(go_on), b"250 mail.test\r\n", "QUIT", b"221 bye\r\n"]
    async with ScriptedServer(script) as server:
        smtp = AsyncSMTP(server.host, server.port)
        connecting = asyncio.create_task(smtp.connect())
        await asked.wait()

        for call in (smtp.connect(), send(smtp), smtp.quit()):
            error = await in_another_loop(call)
            assert type(error) is RuntimeError
            assert "in use in another event loop" in str(error)

        go_on.set()
        assert (await connecting).code == 220  # nobody did it any harm
        await smtp.quit()
    assert server.connections == 1


@each_loop
async def test_a_client_may_be_closed_from_another_loop() -> None:
    async with ScriptedServer([*hello(), "NOOP", read_all()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        waiting = asyncio.create_task(caught(smtp.noop()))
        while not server.received[0].endswith(b"NOOP\r\n"):
            await asyncio.sleep(0)

        async def close() -> None:
            smtp.close()

        assert await in_another_loop(close()) is None

        assert isinstance(await waiting, SMTPServerDisconnected)
        assert not smtp.is_connected


@each_loop
async def test_a_client_may_be_closed_from_a_thread_without_a_loop() -> None:
    async with ScriptedServer([*hello(), read_all()]) as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        thread = threading.Thread(target=smtp.close)
        thread.start()
        await server.conversations[0].gone.wait()
        thread.join()
        assert not smtp.is_connected


# -- the collector ---------------------------------------------------------------------------

THROWN_AWAY = """if True:
    import asyncio, gc, sys
    from aiosmtpclient import AsyncSMTP, Envelope, SMTPPool
    host, port, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    mail = ("a@b.test", "c@d.test", b"Subject: hi\\r\\n\\r\\nhi\\r\\n")

    async def main():
        if what == "client":
            smtp = AsyncSMTP(host, port)
            await smtp.connect()
            await smtp.sendmail(*mail)
        elif what == "client with a failed call":
            smtp = AsyncSMTP(host, port)
            await smtp.connect()
            try:
                await smtp.sendmail("a@b.test", "no@d.test", mail[2])
            except Exception as error:
                print(type(error).__name__)
        elif what == "run of many":
            smtp = AsyncSMTP(host, port, pipelining="stream")
            await smtp.connect()
            async for outcome in smtp.send_messages(Envelope(*mail) for _ in range(100)):
                break
        elif what == "pool":
            smtp = SMTPPool(host, port, max_connections=3)
            await asyncio.gather(*(smtp.sendmail(*mail) for _ in range(9)))
        elif what == "pool with a failed call":
            smtp = SMTPPool(host, port, max_connections=3)
            try:
                await smtp.sendmail("a@b.test", "no@d.test", mail[2])
            except Exception as error:
                print(type(error).__name__)
        del smtp
        gc.collect()
        for _ in range(10):
            await asyncio.sleep(0)
        gc.collect()
        print("over")

    asyncio.run(main())
    gc.collect()
"""

WHAT = ("client", "client with a failed call", "run of many", "pool", "pool with a failed call")


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug mode"])
@pytest.mark.parametrize("what", WHAT)
def test_what_nobody_closed_warns_once_and_says_nothing_else(what: str, debug: bool) -> None:
    with MailServer(refuse={"no@d.test": "550 no"}) as server:
        done = script(
            THROWN_AWAY, server.host, str(server.port), what, options=["-X", "dev"] if debug else []
        )
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "over"), done.stderr
        assert done.stderr.count("unclosed <") == 1, done.stderr
        assert f"ResourceWarning: unclosed <{'SMTPPool' if 'pool' in what else 'AsyncSMTP'} " in done.stderr
        for complaint in ("never retrieved", "was destroyed", "was never awaited", "Traceback"):
            assert complaint not in done.stderr


def script(text: str, *arguments: str, options: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "always",
            "-W",
            "ignore::DeprecationWarning",
            *(options or []),
            "-c",
            text,
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=25,
    )


# -- forks -----------------------------------------------------------------------------------

FORKED = """if True:
    import asyncio, gc, os, sys
    from aiosmtpclient import AsyncSMTP, SMTPPool, run_sync
    host, port, what, how = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
    mail = ("a@b.test", "c@d.test", b"Subject: hi\\r\\n\\r\\nhi\\r\\n")
    loop = None if "run_sync" in what else asyncio.new_event_loop()
    run = run_sync if loop is None else loop.run_until_complete

    def childs(awaitable):
        return run_sync(awaitable) if "run_sync" in what else asyncio.run(awaitable)

    async def opened():
        smtp = SMTPPool(host, port) if "pool" in what else AsyncSMTP(host, port)
        if "by hand" in what:
            await smtp.connect()
            await smtp.login("me", "s3cret")
        elif "pool" not in what:
            await smtp.connect()
        await smtp.sendmail(*mail)
        return smtp

    smtp = run(opened())
    child = os.fork()
    if child:
        print("child ended with", os.waitpid(child, 0)[1])
        run(smtp.sendmail(*mail))
        if "pool" in what:
            print("parent sends on", smtp.stats().opened)
            run(smtp.close())
        else:
            print("parent", run(smtp.quit()).code)
        if loop is not None:
            loop.close()
        sys.exit()
    try:
        if how == "send":
            print("child", childs(smtp.sendmail(*mail)).accepted)
        elif how == "noop":
            print("child", childs(smtp.noop()).code)
        elif how == "quit":
            childs(smtp.quit())
        elif how == "close" and "pool" in what:
            childs(smtp.close())
        elif how == "close":
            smtp.close()
        elif how == "leave":
            childs(smtp.__aexit__(None, None, None))
        elif how == "reconnect":
            print("child", childs(smtp.connect()).code)
        elif how == "drop":
            del smtp
            gc.collect()
        elif how == "exit":
            sys.exit()
    except Exception as error:
        print("child", type(error).__name__, getattr(error, "delivery", ""), error)
    sys.stdout.flush()
    os._exit(0)  # as multiprocessing and the servers that fork do
"""


async def test_what_a_child_inherits_is_over_and_the_parents_octets_stay_the_parents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What happens in the child, here in one process."""
    async with MailServer() as server:
        smtp = AsyncSMTP(server.host, server.port)
        await smtp.connect()
        kept = smtp._connection
        assert kept is not None
        parents = kept.protocol
        monkeypatch.setattr(connection, "_inherited", inherited := [])
        monkeypatch.setattr(connection, "_living", weakref.WeakValueDictionary({kept.serial: kept}))

        connection._in_child()

        assert inherited == [parents]
        assert not smtp.is_connected
        smtp.close()
        await smtp.connect()
        assert (await send(smtp)).accepted == (TO,)
        await smtp.quit()
        assert parents.transport is not None
        assert not parents.transport.is_closing()
        assert server.commands.count("QUIT") == 1
        parents.abort()


def test_a_pool_that_a_child_inherits_lends_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_inherited", inherited := [])
    with MailServer() as server:
        pool = SMTPPool(server.host, server.port)
        parents = asyncio.new_event_loop()
        parents.run_until_complete(pool.sendmail(SENDER, TO, BODY))
        lender = pool._lender
        assert lender is not None
        lender.pid = -1  # as if another process had made it

        async def child() -> None:
            assert (await pool.sendmail(SENDER, NEXT, BODY)).accepted == (NEXT,)
            await pool.close()

        asyncio.run(child())

        assert inherited == [lender]
        assert (server.connections, len(server.messages)) == (2, 2)
        parents.run_until_complete(lender.close(0))
        parents.close()


ITS_OWN = "child ('c@d.test',)"
PARENTS = "is the parent process's: connect() makes one of its own"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("what", "how", "said"),
    [
        ("client", "send", ITS_OWN),
        ("client", "noop", PARENTS),
        ("client", "quit", PARENTS),
        ("client", "close", ""),
        ("client", "leave", ""),
        ("client", "drop", ""),
        ("client", "reconnect", "child 220"),
        ("client by run_sync", "send", ITS_OWN),
        (
            "client by hand",
            "send",
            f"not sent the connection to 127.0.0.1:{{port}} was made before os.fork(), and {PARENTS}",
        ),
        ("pool", "send", ITS_OWN),
        ("pool", "close", ""),
        ("pool", "drop", ""),
        ("pool by run_sync", "send", ITS_OWN),
        ("client by run_sync", "exit", ""),
        ("pool by run_sync", "exit", ""),
    ],
)
def test_a_child_leaves_its_parents_connections_alone_and_the_parent_goes_on(
    what: str, how: str, said: str
) -> None:
    with MailServer(users={"me": "s3cret"}) as server:
        done = script(FORKED, server.host, str(server.port), what, how)
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        assert "child ended with 0" in lines, lines
        assert lines[-1] == ("parent sends on 1" if "pool" in what else "parent 221")
        assert said.format(port=server.port) in done.stdout
        own = said in (ITS_OWN, "child 220")
        assert server.connections == 1 + own
        assert len(server.messages) == 2 + (said == ITS_OWN)
        assert server.commands.count("QUIT") == 1  # the parent's
