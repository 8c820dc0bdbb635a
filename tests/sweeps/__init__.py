"""Sweeps: every fault at every place, and an oracle that knows what the server did.

=================  ======================================================================
`clock`            an event loop whose time passes when nothing else happens
`cable`            the transport of the client, and the server's end of the line
`post`             the server, octet by octet, and what it knows about every message
`behaviours`       what a server may do wrong, as data with names
`secured`          the same server inside TLS, with STARTTLS and a login
`scenarios`        in which ways messages are sent
`trial`            one conversation with one fault, and what the client told about it
`judge`            what is wrong with that, if anything
`blows`            calls of transport, loop and `ssl` that fail, one at a time
`mishaps`          what errors say: the cases, which `messages` lets happen
`calls`            what a caller may be in the middle of
`cuts`             where he is cut short there, and how
`interrupted`      one call that is, and the messages behind it
`figures`          how many trials there were, and the line that says so
=================  ======================================================================

`make test` runs a sample, chosen by a seed that is printed with a failure; `make torture` every
place. A sweep that finds something prints the trial as the arguments that repeat it.
"""
