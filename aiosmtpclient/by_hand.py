"""An envelope by hand: MAIL, RCPT, DATA, one at a time, as smtplib has them.

Whoever sends like this keeps the account himself, but for the content: what became of that is known
for each recipient here as anywhere.

Rules of this room:

* MAIL and RCPT return what the server said, whatever it is.
* Options leave only for a server that said EHLO, as in smtplib.
* Which recipients stand in the envelope is written down, for LMTP has a reply for each. After
  `docmd("RCPT …")` nobody here knows any more.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import addresses, commands, preparing, recipients, transactions
from .bodies import opened
from .delivery import Ledger, stamped
from .errors import SMTPNotSupportedError
from .message import Body, prepare
from .recipients import Recipient
from .replies import Reply
from .steps import Phase
from .verbs import Verbs


class ByHand(Verbs):
    """The verbs, and the three of an envelope."""

    async def mail(self, sender: str, options: Sequence[str] = ()) -> Reply:
        """MAIL: begin an envelope; returns the reply, whatever it is."""
        options = tuple(options) if self._may_have_options() else ()
        address = addresses.sender(sender)
        asked = any(option.upper() == "SMTPUTF8" for option in options)
        if asked and not self.has_extn("smtputf8"):
            raise SMTPNotSupportedError("the server does not offer SMTPUTF8, which the options ask for")
        needed = self._may_use_utf8(address.path)
        if needed and not asked:
            options = (*options, "SMTPUTF8")  # without it the server may not take such an address (RFC 6531)
        line = commands.mail(address.path, options, utf8=asked or needed)
        reply = await self._command(line, "MAIL", then=Phase.MAIL)
        if reply.positive and self._connection is not None:
            self._connection.recipients = []
        return reply

    async def rcpt(self, recip: str, options: Sequence[str] = ()) -> Reply:
        """RCPT: add a recipient, with what a `Recipient` asks for; returns the reply, whatever it is."""
        address = addresses.recipient(recip)
        if isinstance(recip, Recipient):
            # Nobody here knows whether MAIL said SMTPUTF8. The form without it is always right.
            [options] = recipients.rcpt([recip], options, None, self.extensions, smtputf8=False)
        options = tuple(options) if self._may_have_options() else ()
        line = commands.rcpt(address.path, options, utf8=self._may_use_utf8(address.path))
        reply = await self._command(line, "RCPT", then=Phase.MAIL)
        connection = self._connection
        if reply.positive and connection is not None and connection.recipients is not None:
            connection.recipients.append(recip)
        return reply

    async def data(self, msg: Body) -> Reply:
        """DATA and the content, after `mail` and `rcpt`; returns what was said to the content.

        In LMTP there is a reply a recipient: the first refusal is returned if there is one.
        `sendmail` accounts for each.

        Raises:
            SMTPDataError: DATA itself was refused.
        """
        ledger = Ledger(())
        with stamped(ledger):
            async with self._my_turn():
                connection = self._connected()
                if connection.recipients is None and self._settings.lmtp:
                    raise RuntimeError("name the recipients by rcpt(): in LMTP there is a reply for each")
                ledger.begin(connection.recipients or ())
                connection.recipients = []
                # The envelope stands already; content is all that is wanted here.
                prepared = await preparing.prepared(
                    lambda eightbitmime, smtputf8: prepare(
                        "", "postmaster", msg, eightbitmime=eightbitmime, smtputf8=smtputf8
                    ),
                    msg,
                    eightbitmime=True,
                    smtputf8=True,
                )
                async with opened(prepared.content) as content:
                    prepared.content = content
                    return await self._converse(
                        transactions.content(prepared, ledger, lmtp=self._settings.lmtp)
                    )

    def _may_have_options(self) -> bool:
        return self._connection is not None and self._connection.esmtp
