"""The account of one message: what is known about it and each recipient, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from aiosmtpclient.delivery import SendResult
from aiosmtpclient.errors import Delivery, RecipientOutcome
from aiosmtpclient.replies import Reply

from .exits import Exit, exit_of, exit_of_outcomes


@dataclass(frozen=True, slots=True)
class Account:
    """What became of one message.

    Attributes:
        file: where the message came from; "-" for standard input.
        delivery: what is known, in one word.
        outcomes: the same for each recipient, by position.
        reply: what the server said to the end of the content.
        error: what went wrong, if nobody is known to have it.
    """

    file: str
    delivery: Delivery
    outcomes: tuple[RecipientOutcome, ...] = ()
    reply: Reply | None = None
    error: BaseException | None = None

    @classmethod
    def of_result(cls, file: str, result: SendResult) -> Account:
        """The account of a message that at least one recipient gets."""
        return cls(file, Delivery.ACCEPTED, result.outcomes, result.reply)

    @classmethod
    def of_error(cls, file: str, error: BaseException, recipients: tuple[str, ...] = ()) -> Account:
        """The account of a message that failed.

        Args:
            file: where the message came from.
            error: its `outcomes` tell about each recipient, if it has any.
            recipients: those who were not even asked for if it has none.
        """
        outcomes: tuple[RecipientOutcome, ...] = getattr(error, "outcomes", ())
        if not outcomes:
            outcomes = tuple(RecipientOutcome(address, Delivery.NOT_SENT, None) for address in recipients)
        return cls(file, getattr(error, "delivery", Delivery.NOT_SENT), outcomes, error=error)

    @property
    def code(self) -> Exit:
        """What to exit with after this message alone."""
        return exit_of(self.error) if self.error is not None else exit_of_outcomes(self.outcomes)

    def lines(self) -> list[str]:
        """The account in words: a line for the message, then one for each recipient."""
        said = f": {self.reply.display}" if self.reply is not None else ""
        return [f"{self.file}: {self.delivery}{said}", *map(_line, self.outcomes)]

    def as_json(self) -> dict[str, object]:
        """The account as an object for `json.dumps`."""
        return {
            "file": self.file,
            "delivery": self.delivery.value,
            "outcomes": [_outcome_as_json(outcome) for outcome in self.outcomes],
            "reply": reply_as_json(self.reply),
            "error": _error_as_json(self.error),
        }


def _line(outcome: RecipientOutcome) -> str:
    # The words about somebody who was accepted stand in the first line, or are all alike.
    refused = outcome.delivery is Delivery.REFUSED and outcome.reply is not None
    said = f": {outcome.reply.display}" if refused and outcome.reply is not None else ""
    return f"  {outcome.delivery.value:<8}  {outcome.address}{said}"


def _outcome_as_json(outcome: RecipientOutcome) -> dict[str, object]:
    said = _said(outcome.reply)
    return {"address": outcome.address, "delivery": outcome.delivery.value, **said}


def _said(reply: Reply | None) -> dict[str, object]:
    if reply is None:
        return {"code": None, "message": None, "enhanced_code": None}
    enhanced = reply.enhanced_code
    return {
        "code": reply.code,
        "message": reply.text,
        "enhanced_code": str(enhanced) if enhanced is not None else None,
    }


def reply_as_json(reply: Reply | None) -> dict[str, object] | None:
    """A reply as an object for `json.dumps`; None if there was none."""
    return _said(reply) if reply is not None else None


def _error_as_json(error: BaseException | None) -> dict[str, object] | None:
    if error is None:
        return None
    return {
        "type": type(error).__name__,
        "message": str(error) or "interrupted",
        "temporary": getattr(error, "temporary", False),
    }
