"""Fuzzing: octets that nobody would write, and what must hold for all of them.

====================  ===================================================================
target                what is made of the octets, and what must hold
====================  ===================================================================
`replies`             a stream of replies: one meaning, however it is split
`hellos`              an answer to EHLO: what is offered, and what may be asked for then
`challenges`          SASL challenges, for each mechanism, and the AUTH dialogue around it
`callers`             addresses, options, headers: one transaction, and nothing outside it
`verbs`               the same for single commands, names to say hello with, logins, PROXY
`bodies`              content of any kind in any slices: it arrives as it was given
`conversations`       a client, and a server that says anything at all
====================  ===================================================================

Each target is a function `check(octets)` that returns, or raises an AssertionError. What makes the
octets does not matter to it: Hypothesis in `test_fuzz`, and for long runs `python -m tests.fuzz`,
with atheris where it is installed, or else by mutation with a seed.

`choices` reads decisions out of octets, `spoken` makes replies of them. `strict` is a server that
takes nothing but what the RFCs say, `counter` puts it at the other end of a cable of the sweeps.

Rules of this room:

* The octets decide everything but the challenge that NTLM draws: the same ones do the same again.
* What may be raised is what is documented: our tree; ValueError and TypeError for what a caller
  gave. An exception of any other class is a finding, and so is a UnicodeError.
* A model here shares no code with what it is held against.
"""
