"""The client against mail servers that people run, started on loopback for the time of the tests.

Not part of the ordinary suite: `make interop` runs it. `packages` finds or fetches the software,
`processes` starts and ends it, `servers/` has one room a server, `letters` is what is sent and
`stored` what arrived, and the `test_` rooms hold one table of cases for all servers. `matrix`
turns what they found out into the page docs/interop.md.
"""
