"""Send one message from the terminal, and watch the conversation.

The classic example of smtplib's documentation in our own words; only the import is another one.

    python examples/classic.py [host[:port]]

asks for the sender and the recipients, reads the message up to the end of the input (Ctrl-D),
and hands it to the mail server, on this machine unless another one is named.
"""

import sys

from aiosmtpclient import SMTP


def main() -> None:
    """Ask, read, send."""
    sender = input("From: ").strip()
    recipients = input("To (several with commas): ").replace(",", " ").split()
    print("Message, up to the end of the input:")
    header = f"From: {sender}\r\nTo: {', '.join(recipients)}\r\n\r\n"
    message = header + sys.stdin.read()
    print(f"That is {len(message)} characters.")

    server = SMTP(sys.argv[1] if len(sys.argv) > 1 else "localhost")
    server.set_debuglevel(1)
    server.sendmail(sender, recipients, message)
    server.quit()


if __name__ == "__main__":
    main()
