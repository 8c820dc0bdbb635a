"""The sink where no C compiler is: the same counters and the same control line as `sink.c`.

It is several times slower, and the report says so: the check against the limit client tells
whether it is what was measured.

Rules of this room:

* What `sink.c` answers, this answers; the control line is described there.
* One thread, one epoll (or what the platform has), no asyncio: it costs as much again.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable

_EHLO = (
    b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE 1073741824\r\n250-8BITMIME\r\n"
    b"250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n"
)
_DOT = b"\r\n.\r\n"
_NAMES = ("messages", "recipients", "octets", "waits", "connections", "commands")


class Sink:
    """What all connections share: the counters, and whether replies are held back."""

    def __init__(self) -> None:
        self.counted = dict.fromkeys(_NAMES, 0)
        self.hold = 0.0
        self.queued = 0
        self.cpu_taken = 0.0
        self.everyone: set[Conversation] = set()
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, self.welcome)
        self.selector.register(0, selectors.EVENT_READ, self.obey)

    def run(self) -> None:
        """Serve until the control line ends."""
        print("ready", self.listener.getsockname()[1], flush=True)
        while True:
            events = self.selector.select(self.hold or None)
            if not events:
                for conversation in tuple(self.everyone):
                    conversation.flush()
            for key, _ in events:
                serve: Callable[[], None] = key.data
                serve()

    def welcome(self) -> None:
        """Take a connection."""
        sock, _ = self.listener.accept()
        conversation = Conversation(self, sock)
        self.everyone.add(conversation)
        self.counted["connections"] += 1
        self.selector.register(sock, selectors.EVENT_READ, conversation.serve)

    def obey(self) -> None:
        """Read the control line."""
        words = os.read(0, 64).split()
        if not words:
            sys.exit()
        if words[0] == b"take":
            self.take()
        elif words[0] == b"hold":
            self.hold = int(words[1]) / 1000
            for conversation in tuple(self.everyone):
                conversation.flush()
            print("holding", int(words[1]), flush=True)

    def take(self) -> None:
        """Print the counters, and start from zero."""
        cpu = time.process_time()
        print(json.dumps({**self.counted, "cpu_seconds": cpu - self.cpu_taken}), flush=True)
        self.cpu_taken = cpu
        self.counted = dict.fromkeys(_NAMES, 0)


class Conversation:
    """One connection."""

    def __init__(self, sink: Sink, sock: socket.socket) -> None:
        self.sink = sink
        self.sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = b""
        self.out = [b"220 sink.example ESMTP\r\n"]
        self.read: Callable[[], bool] = self.command
        self.started = self.replied = self.mail = self.last = self.closing = False
        self.recipients = 0
        self.left = 0
        self.settle()

    # -- octets in and out -------------------------------------------------------------

    def serve(self) -> None:
        """Read what came, answer it."""
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if self.replied and self.started:
            self.sink.counted["waits"] += 1
        self.replied = False
        if not data:
            self.hang_up()
            return
        self.input = self.input + data if self.input else data
        while self.input and not self.closing and self.read():
            pass
        self.settle()

    def settle(self) -> None:
        """Flush, unless replies are held back."""
        if not self.sink.hold:
            self.flush()

    def flush(self) -> None:
        """Write the replies. They are few: a full socket buffer is waited for."""
        if self.out:
            try:
                self.sock.setblocking(True)
                self.sock.sendall(b"".join(self.out))
                self.sock.setblocking(False)
            except OSError:
                self.hang_up()
                return
            self.out.clear()
            self.replied = True
        if self.closing:
            self.hang_up()

    def hang_up(self) -> None:
        """Forget this connection."""
        self.sink.everyone.discard(self)
        if self.sock.fileno() >= 0:
            self.sink.selector.unregister(self.sock)
            self.sock.close()

    # -- what is said to us: each returns False if it needs more octets -----------------

    def command(self) -> bool:
        """Read one line."""
        line, feed, rest = self.input.partition(b"\n")
        if not feed:
            return False
        self.input = rest
        self.sink.counted["commands"] += 1
        self.out.append(self.answer(line.upper()))
        return True

    def answer(self, line: bytes) -> bytes:
        """What is said to a command."""
        verb = line[:4]
        if verb == b"MAIL":
            self.started = self.mail = True
            self.recipients = 0
            return b"250 2.1.0 Ok\r\n"
        if verb == b"RCPT" and self.mail:
            self.recipients += 1
            return b"250 2.1.5 Ok\r\n"
        if verb == b"DATA" and self.recipients:
            self.read = self.content
            # The line break that may stand before the dot: an empty message has none.
            self.input = b"\r\n" + self.input
            self.sink.counted["octets"] -= 2
            return b"354 End data with <CR><LF>.<CR><LF>\r\n"
        if verb == b"BDAT":
            self.left, self.last = int(line.split()[1]), line.rstrip().endswith(b" LAST")
            self.read = self.chunk
            return b"" if self.left else self.took_chunk()
        if verb in (b"RCPT", b"DATA"):
            return b"503 5.5.1 Error: bad sequence of commands\r\n"
        return self.simple(verb)

    def simple(self, verb: bytes) -> bytes:
        """What is said to a command that begins nothing."""
        self.closing = verb == b"QUIT"
        if verb in (b"EHLO", b"LHLO", b"HELO", b"RSET"):
            self.mail, self.recipients = False, 0
        if verb in (b"EHLO", b"LHLO"):
            return _EHLO
        if verb in (b"HELO", b"RSET", b"NOOP"):
            return b"250 2.0.0 Ok\r\n"
        if verb == b"QUIT":
            return b"221 2.0.0 Bye\r\n"
        return b"502 5.5.2 Error: command not recognized\r\n"

    def content(self) -> bool:
        """Read content up to and with the line that is a dot."""
        end = self.input.find(_DOT)
        if end >= 0:
            self.sink.counted["octets"] += end + 2
            self.input = self.input[end + 5 :]
            self.out.append(self.took_message())
            return True
        keep = max(0, len(self.input) - 4)
        self.sink.counted["octets"] += keep
        self.input = self.input[keep:]
        return False

    def chunk(self) -> bool:
        """Read a chunk."""
        here = min(self.left, len(self.input))
        self.left -= here
        self.input = self.input[here:]
        if self.recipients:
            self.sink.counted["octets"] += here
        if not self.left:
            self.out.append(self.took_chunk())
        return True

    def took_chunk(self) -> bytes:
        """What is said to the end of a chunk."""
        self.read = self.command
        if not self.recipients:
            return b"503 5.5.1 Error: need MAIL and RCPT first\r\n"
        return self.took_message() if self.last else b"250 2.0.0 Ok\r\n"

    def took_message(self) -> bytes:
        """What is said to the end of a message."""
        self.read = self.command
        sink = self.sink
        sink.counted["messages"] += 1
        sink.counted["recipients"] += self.recipients
        sink.queued += 1
        self.mail, self.recipients = False, 0
        return b"250 2.0.0 Ok: queued as %X\r\n" % (0x4F0000000 + sink.queued)


if __name__ == "__main__":
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    Sink().run()
