"""The blocking side at odd moments: from many threads, a signal handler, an exit handler, with Ctrl-C.

==========================  ==============================================================
case                        where it is tested besides here
==========================  ==============================================================
inside a running loop       `test_sync.test_it_may_be_used_inside…`, `test_runner.test_it_can_be_used_inside…`
from 20 threads             `test_sync.test_threads_may_share_a_client`, `test_pool.test_twenty_threads…`
its own loop's thread       `test_sync.test_it_is_refused_on_its_own_loop`, `test_runner.test_its_own_thread…`
an exit with one open       `test_sync.test_an_exit_with_an_unclosed…`, `test_runner.test_an_exit_with…`
Ctrl-C                      `test_sync.test_ctrl_c_in_a_stalled_send…`, `test_runner.test_ctrl_c…`
fork                        `test_sync.test_a_child_does_not_write…`, `test_runner.test_parent_and_child…`
==========================  ==============================================================
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from wire import Left, press_ctrl_c

from aiosmtpclient import SMTP, AsyncSMTP, Delivery, SMTPPool, SMTPServerDisconnected, run_sync, runner
from aiosmtpclient.testing import CertificateAuthority, Conversation, MailServer, ScriptedServer
from aiosmtpclient.testing.scripted import Step, ehlo, greeting, read_all

BODY = b"Subject: hello\r\n\r\nHello.\r\n"
MAIL = ("a@b.test", "c@d.test", BODY)


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as running:
        yield running


@pytest.fixture
def fresh() -> Iterator[None]:
    """No loop before, none afterwards, and the usual kind of loop again."""
    runner.stop()
    yield
    runner.stop()
    runner.configure(asyncio.new_event_loop)


# -- where a loop runs, and from many threads -----------------------------------------------------


def test_inside_a_running_loop_everything_works_and_that_loop_waits(server: MailServer) -> None:
    turns = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(turns.append, "turn")
        with SMTP(server.host, server.port) as smtp:
            smtp.ehlo()
            smtp.sendmail(*MAIL)
        pool = SMTPPool(server.host, server.port)
        run_sync(pool.sendmail(*MAIL))
        run_sync(pool.close())
        assert turns == []  # blocked, as by smtplib
        await asyncio.sleep(0)

    asyncio.run(main())
    assert len(server.messages) == 2
    assert turns == ["turn"]


def test_twenty_threads_with_a_client_each(server: MailServer) -> None:
    together = threading.Barrier(20)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            together.wait()
            for _ in range(3):
                with SMTP(server.host, server.port) as smtp:
                    smtp.sendmail(*MAIL)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (len(server.messages), server.connections) == (60, 60)


def test_one_thread_closes_what_nineteen_use(server: MailServer) -> None:
    smtp = SMTP(server.host, server.port)
    together = threading.Barrier(20)
    seen: list[object] = []

    def work() -> None:
        together.wait()
        try:
            while True:
                smtp.noop()
        except BaseException as error:
            seen.append(error)

    threads = [threading.Thread(target=work) for _ in range(19)]
    for thread in threads:
        thread.start()
    together.wait()
    smtp.close()
    for thread in threads:
        thread.join()
    assert [type(error) for error in seen] == [SMTPServerDisconnected] * 19


def test_an_asynchronous_client_of_run_sync_is_refused_in_another_loop(server: MailServer) -> None:
    smtp = AsyncSMTP(server.host, server.port)
    run_sync(smtp.connect())
    with pytest.raises(RuntimeError, match="in use in another event loop"):
        asyncio.run(smtp.noop())
    run_sync(smtp.quit())


# -- signal handlers -------------------------------------------------------------------------------


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], object]], None]]:
    before = signal.getsignal(signal.SIGUSR1)

    def install(work: Callable[[], object]) -> None:
        signal.signal(signal.SIGUSR1, lambda number, frame: work())

    yield install
    signal.signal(signal.SIGUSR1, before)


def raise_signal(_: Conversation) -> asyncio.Future[None]:
    """A step of a script: the client's process gets a signal."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
    return asyncio.sleep(0)  # type: ignore[return-value]


def test_a_signal_handler_may_send_while_the_program_waits(
    server: MailServer, on_signal: Callable[[Callable[[], object]], None]
) -> None:
    handled = threading.Event()

    def send() -> None:
        with SMTP(server.host, server.port) as smtp:
            smtp.sendmail(*MAIL)
        handled.set()

    on_signal(send)

    async def answer(_: Conversation) -> None:
        while not handled.is_set():
            await asyncio.sleep(0)

    with ScriptedServer([greeting(), "NOOP", raise_signal, answer, b"250 ok\r\n", read_all()]) as slow:
        smtp = SMTP(slow.host, slow.port)
        assert smtp.noop().code == 250
        smtp.close()
    assert len(server.messages) == 1


def test_a_signal_handler_may_use_the_very_client_that_is_waited_for(
    on_signal: Callable[[Callable[[], object]], None],
) -> None:
    said: list[int] = []
    answers: list[Step] = [b"250 first\r\n", "RSET", b"250 second\r\n", read_all()]
    with ScriptedServer([greeting(), "NOOP", raise_signal, *answers]) as slow:
        smtp = SMTP(slow.host, slow.port)
        on_signal(lambda: said.append(smtp.rset().code))
        assert smtp.noop().text == "first"
        assert said == [250]
        smtp.close()


@pytest.mark.usefixtures("fresh")
def test_a_signal_in_the_very_moment_in_which_the_loop_is_started_does_not_hang(
    server: MailServer, on_signal: Callable[[Callable[[], object]], None]
) -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        if not made:
            made.append(asyncio.new_event_loop())
            signal.raise_signal(signal.SIGUSR1)  # whose handler runs here, with the lock held
            return made[0]
        made.append(asyncio.new_event_loop())
        return made[-1]

    sent: list[object] = []

    def send() -> None:
        with SMTP(server.host, server.port) as smtp:
            sent.append(smtp.sendmail(*MAIL))

    on_signal(send)
    runner.configure(factory)
    with SMTP(server.host, server.port) as smtp:
        sent.append(smtp.sendmail(*MAIL))
    assert sent == [{}, {}]
    assert [loop.is_closed() for loop in made] == [True, False]  # one loop a process, still
    assert [thread.name for thread in threading.enumerate()].count(runner.THREAD_NAME) == 1


def test_a_handler_of_an_event_loop_may_send(server: MailServer) -> None:
    async def main() -> None:
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            with SMTP(server.host, server.port) as smtp:
                smtp.sendmail(*MAIL)
            sent.set()

        loop.add_signal_handler(signal.SIGUSR1, send)
        signal.raise_signal(signal.SIGUSR1)
        await sent.wait()
        loop.remove_signal_handler(signal.SIGUSR1)

    asyncio.run(main())
    assert len(server.messages) == 1


# -- Ctrl-C ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["greeting", "EHLO", "STARTTLS", "handshake", "AUTH", "QUIT"])
def test_ctrl_c_in_any_phase_leaves_no_connection_behind(phase: str) -> None:
    left = Left(whatever=True)  # a ClientHello, for one
    hello: list[Step] = [greeting(), ehlo("STARTTLS", "AUTH PLAIN")]
    scripts: dict[str, list[Step]] = {
        "greeting": [press_ctrl_c, left],
        "EHLO": [greeting(), "EHLO", press_ctrl_c, left],
        "STARTTLS": [*hello, "STARTTLS", press_ctrl_c, left],
        "handshake": [*hello, "STARTTLS", b"220 go\r\n", press_ctrl_c, left],
        "AUTH": [*hello, "AUTH", press_ctrl_c, left],
        "QUIT": [*hello, "QUIT", press_ctrl_c, left],
    }

    def talk(smtp: SMTP, server: ScriptedServer) -> None:
        smtp.connect(server.host, server.port)
        smtp.ehlo()
        if phase in ("STARTTLS", "handshake"):
            smtp.starttls(context=CertificateAuthority().client_context())
        elif phase == "AUTH":
            smtp.login("me", "s3cret")
        smtp.quit()

    with ScriptedServer(scripts[phase]) as server:
        smtp = SMTP()
        with pytest.raises(KeyboardInterrupt):
            talk(smtp, server)
        assert smtp.sock is None
        assert left.wait()
        with pytest.raises(SMTPServerDisconnected):
            smtp.noop()


def test_ctrl_c_in_the_constructor_leaves_no_connection_behind() -> None:
    left = Left(whatever=True)
    with ScriptedServer([press_ctrl_c, left]) as server:
        with pytest.raises(KeyboardInterrupt):
            SMTP(server.host, server.port)
        assert left.wait()


def test_ctrl_c_in_a_pool_knows_what_became_of_the_message_and_the_pool_goes_on() -> None:
    left = Left(whatever=True)
    taken: list[Step] = ["MAIL", b"250 ok\r\n", "RCPT", b"250 ok\r\n", "DATA"]
    again: list[Step] = [*taken, b"354 go\r\n", lambda c: c.expect_content(), b"250 ok\r\n", read_all()]
    hello: list[Step] = [greeting(), ehlo()]
    with ScriptedServer([*hello, *taken, press_ctrl_c, left], [*hello, *again]) as server:
        pool = SMTPPool(server.host, server.port)
        with pytest.raises(KeyboardInterrupt) as caught:
            run_sync(pool.sendmail(*MAIL))
        assert caught.value.delivery is Delivery.NOT_SENT  # type: ignore[attr-defined]
        assert left.wait()
        assert run_sync(pool.sendmail(*MAIL)).accepted == ("c@d.test",)
        run_sync(pool.close(0))


def test_ctrl_c_twice_is_believed_at_once() -> None:
    """The second one comes while the end of what the first one cancelled is waited for."""
    release = threading.Event()

    async def stubborn() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.to_thread(release.wait)

    with pytest.raises(KeyboardInterrupt):
        run_sync(stubborn())
    release.set()


# -- the end of the interpreter --------------------------------------------------------------------------


def run_script(script: str, server: MailServer) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", script, server.host, str(server.port)],
        capture_output=True,
        text=True,
        check=False,
        timeout=25,
    )


AT_EXIT = """if True:
    import atexit, sys
    host, port = sys.argv[1], int(sys.argv[2])
    mail = ("a@b.test", "c@d.test", b"Subject: bye\\r\\n\\r\\nbye\\r\\n")
    {before}
    from aiosmtpclient import SMTP
    {after}
"""
SEND = """
    @atexit.register
    def last_words():
        from aiosmtpclient import SMTP
        with SMTP("localhost", port) as smtp:
            print(dict(smtp.sendmail(*mail)))
"""


NO_THREAD = pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="no exit handler may begin a thread")


@pytest.mark.parametrize(
    "open_before", [pytest.param(False, marks=NO_THREAD), True], ids=["", "with a client open"]
)
def test_an_exit_handler_may_send_and_look_up_a_name(server: MailServer, open_before: bool) -> None:
    """The executor, in which a name is looked up, takes nothing any more then."""
    after = SEND + ("    kept = SMTP(host, port)\n" if open_before else "")
    done = run_script(AT_EXIT.format(before="", after=after), server)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")
    assert len(server.messages) == 1


def test_an_exit_handler_may_use_a_client_that_is_open(server: MailServer) -> None:
    after = """
    kept = SMTP(host, port)
    @atexit.register
    def last_words():
        print(dict(kept.sendmail(*mail)), kept.quit().code)
    """
    done = run_script(AT_EXIT.format(before="", after=after), server)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{} 221\n", "")


def test_an_exit_handler_that_comes_last_of_all_sends_or_says_why_not(server: MailServer) -> None:
    """CPython 3.12 lets no exit handler begin the thread that the loop needs."""
    before = SEND.replace("print(dict(smtp.sendmail(*mail)))", "smtp.sendmail(*mail)")
    done = run_script(AT_EXIT.format(before=before, after="kept = SMTP(host, port)"), server)
    if server.messages:
        assert done.stderr == ""
    else:
        assert "registered behind the first call" in done.stderr


def test_after_the_exit_handlers_it_is_an_error_and_no_hang(server: MailServer) -> None:
    after = """
    class Late:
        def __init__(self, smtp):
            self.smtp = smtp
        def __del__(self, SMTP=SMTP, host=host, port=port):
            for call in (lambda: SMTP(host, port), self.smtp.noop):
                try:
                    call()
                except RuntimeError as error:
                    print(error)
            self.smtp.close()  # which has nothing to do any more
    late = Late(SMTP(host, port))
    """
    done = run_script(AT_EXIT.format(before="", after=after), server)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("the interpreter is at its end, and no event loop can be started any more") == 2


def test_threads_that_still_send_at_exit_do_not_hang_it(server: MailServer) -> None:
    after = """
    import threading
    begun = threading.Barrier(3)
    def work(forever):
        smtp = SMTP(host, port)
        begun.wait()
        while True:
            smtp.noop()
            if not forever:
                break
        smtp.quit()
        print("done")
    threading.Thread(target=work, args=(True,), daemon=True).start()
    threading.Thread(target=work, args=(False,)).start()
    begun.wait()
    """
    done = run_script(AT_EXIT.format(before="", after=after), server)
    assert (done.returncode, done.stdout) == (0, "done\n")
    if done.stderr:  # the daemon was heard once more, and maybe cut short while it spoke
        assert done.stderr.startswith("Exception in thread"), done.stderr
        assert "Fatal" not in done.stderr


def test_a_child_of_a_thread_in_the_middle_of_a_call_goes_its_own_way(server: MailServer) -> None:
    script = """if True:
    import os, sys, threading
    from aiosmtpclient import SMTP
    host, port = sys.argv[1], int(sys.argv[2])
    smtp, stop = SMTP(host, port), threading.Event()
    def work():
        while not stop.is_set():
            smtp.noop()
    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        child = os.fork()
        if not child:
            with SMTP(host, port) as own:
                own.rset()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    print(smtp.quit().code)
    """
    done = subprocess.run(
        [sys.executable, "-c", script, server.host, str(server.port)],
        capture_output=True,
        text=True,
        check=False,
        timeout=25,
        env=os.environ | {"PYTHONWARNINGS": "error,ignore::DeprecationWarning"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "221\n", "")
    assert server.commands.count("RSET") == 5
