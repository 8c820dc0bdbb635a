"""The command line: `aiosmtpclient send`, `bulk`, `check` and `demo`, one room each.

`exits` says what an exit code means, `printing` is the only room that prints, `options` holds
what the commands share, `account` is the account of one message. The back rooms of `bulk` are, on
the way of a message, `sources` (with `mboxes` and `jsonlines`), `letters`, `feeding`, `runs` and
`journal` (with `standings`); `counting` and `progress` show it. `certificates` is the back room of
`check`, `meant` and `rehearsal` are those of `demo`. The front door is `aiosmtpclient.__main__`.
"""
