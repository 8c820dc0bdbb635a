"""The command line: `aiosmtpclient send`, `bulk`, `check` and `demo`, one room each.

`exits` says what an exit code means, `printing` is the only room that prints, `options` holds
what the commands share, `account` is the account of one message, `certificates` and `meant` are
the back rooms of `check` and `demo`. The front door is `aiosmtpclient.__main__`.
"""
