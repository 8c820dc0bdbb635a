"""Each command as octets, and everything that must not get through the gate."""

import base64
import contextlib
import traceback

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from leaks import told

from aiosmtpclient import commands

CONTROLS = [bytes([octet]) for octet in (*range(0x20), 0x7F)]
PASSWORD = "correct horse battery staple"


# -- hello


@pytest.mark.parametrize("verb", ["EHLO", "HELO", "LHLO", "ehlo"])
def test_hello_says_the_verb_and_the_name(verb: str) -> None:
    assert commands.hello(verb, "client.example") == f"{verb.upper()} client.example\r\n".encode()


@pytest.mark.parametrize("name", ["[127.0.0.1]", "[IPv6:2001:db8::1]", "my_host", "localhost"])
def test_hello_takes_address_literals_and_odd_host_names(name: str) -> None:
    assert commands.hello("EHLO", name) == f"EHLO {name}\r\n".encode()


def test_hello_says_an_international_name_in_a_labels() -> None:
    assert commands.hello("EHLO", "bücher.example") == b"EHLO xn--bcher-kva.example\r\n"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a\r\nMAIL FROM:<x@y>",
        "a\n",
        "a\0",
        "a\tb",
        "a\x7f",
        "bü\u00a0cher",  # a no-break space becomes a space on its way to A-labels
        "bü..example",
        "[bü]",
        "ü" * 300,
        "a\udc80b",
    ],
)
def test_hello_refuses_what_would_break_the_line(name: str) -> None:
    with pytest.raises(ValueError, match="not a") as caught:
        commands.hello("EHLO", name)

    assert not isinstance(caught.value, UnicodeError)


def test_hello_knows_three_verbs_only() -> None:
    with pytest.raises(ValueError, match="not 'MAIL'"):
        commands.hello("MAIL", "client.example")


# -- paths


@pytest.mark.parametrize(
    "path",
    [
        b"a@example.com",
        b"",
        b"postmaster",
        b"o'hara+tag=x@example.com",
        b'"a b"@example.com',
        b'"a\\"b"@example.com',
        b'"a>b<c"@example.com',
        b'"\\\\"@example.com',
        b'""@example.com',
        b"a@[IPv6:2001:db8::1]",
        b"DOMAIN\\user@example.com",
        b'a\\\\"b c"@example.com',
    ],
)
def test_mail_puts_a_path_between_brackets_as_it_is(path: bytes) -> None:
    assert commands.mail(path) == b"MAIL FROM:<" + path + b">\r\n"


@pytest.mark.parametrize("octet", CONTROLS)
@pytest.mark.parametrize("template", [b"a%bb@example.com", b'"a%bb"@example.com', b'"a\\%bb"@x', b"a@b%b"])
@pytest.mark.parametrize("utf8", [False, True])
def test_a_control_character_never_injects_a_command(template: bytes, octet: bytes, utf8: bool) -> None:
    for build in (commands.mail, commands.rcpt, commands.vrfy, commands.expn):
        with pytest.raises(ValueError, match="control character"):
            build(template % octet, utf8=utf8)


@pytest.mark.parametrize(
    "path",
    [
        b"a@example.com> SIZE=1",
        b"a@example.com>",
        b"<a@example.com",
        b"a b@example.com",
        b" a@example.com",
        b'"a@example.com',
        b'"a\\"@example.com',
        b'a\\" b"@example.com',  # readers disagree whether the first quote opens a string
        b'a\\"b@example.com',
        b"a@example.com\\",  # would take our closing bracket with it
        b'"a"> <b"@example.com',
    ],
)
@pytest.mark.parametrize("utf8", [False, True])
def test_a_path_cannot_end_early(path: bytes, utf8: bool) -> None:
    for build in (commands.mail, commands.rcpt):
        with pytest.raises(ValueError, match="where none may be"):
            build(path, utf8=utf8)
    for paths in ([path], [path, b"a@b"], [b"a@b", path], [b'"c d"@e', path]):
        with pytest.raises(ValueError, match="where none may be"):
            commands.rcpts(paths, utf8=utf8)


@pytest.mark.parametrize("octet", CONTROLS)
@pytest.mark.parametrize("utf8", [False, True])
def test_among_many_paths_a_control_character_injects_nothing_either(octet: bytes, utf8: bool) -> None:
    for bad in (b"a%bb@example.com" % octet, b"a@b%b" % octet, octet, b'"%b"@x' % octet):
        for paths in ([bad], [bad, b"a@b"], [b"a@b", bad, b"c@d"], [b'"e f"@g', bad]):
            with pytest.raises(ValueError, match="control character"):
                commands.rcpts(paths, utf8=utf8)


@pytest.mark.parametrize("paths", [[b""], [b"", b"a@b"], [b"a@b", b""], [b"a@b", b"", b'"c d"@e']])
def test_among_many_paths_none_may_be_empty(paths: list[bytes]) -> None:
    with pytest.raises(ValueError, match="empty recipient"):
        commands.rcpts(paths)


def test_many_paths_are_a_line_each() -> None:
    assert commands.rcpts([]) == b""
    assert commands.rcpts([b"a@b"]) == b"RCPT TO:<a@b>\r\n"
    for paths in ([b"a@b", b"c@d"], [b"a@b", b'"c d"@e'], ["jörg@x".encode(), b"a@b"]):
        lines = b"".join(commands.rcpt(path, utf8=True) for path in paths)
        assert commands.rcpts(paths, utf8=True) == lines
    with pytest.raises(ValueError, match="without SMTPUTF8"):
        commands.rcpts([b"a@b", "jörg@x".encode()])


def test_the_octets_that_may_stand_anywhere_in_a_path_are_these() -> None:
    passed = set()
    for octet in range(256):
        with contextlib.suppress(ValueError):
            commands.mail(bytes([octet]))
            commands.rcpt(b"a" + bytes([octet]) + b"@x")
            passed.add(octet)
    assert passed == set(range(0x21, 0x7F)) - set(b'<>"\\')


def test_a_path_in_utf8_needs_smtputf8() -> None:
    path = "jörg@bücher.example".encode()

    assert commands.mail(path, ["SMTPUTF8"], utf8=True) == b"MAIL FROM:<" + path + b"> SMTPUTF8\r\n"
    assert commands.rcpt(path, utf8=True) == b"RCPT TO:<" + path + b">\r\n"
    with pytest.raises(ValueError, match="without SMTPUTF8"):
        commands.rcpt(path)


def test_quoting_works_in_utf8_too() -> None:
    path = '"jö rg\\ü"@example.com'.encode()

    assert commands.rcpt(path, utf8=True) == b"RCPT TO:<" + path + b">\r\n"


def test_octets_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(ValueError, match="not UTF-8") as caught:
        commands.mail(b"j\xf6rg@example.com", utf8=True)

    assert not isinstance(caught.value, UnicodeError)


def test_a_c1_control_is_a_control() -> None:
    with pytest.raises(ValueError, match="control character"):
        commands.mail("a\u0085b@example.com".encode(), utf8=True)


def test_an_empty_recipient_is_refused_but_an_empty_sender_is_the_null_path() -> None:
    assert commands.mail(b"") == b"MAIL FROM:<>\r\n"
    with pytest.raises(ValueError, match="empty recipient"):
        commands.rcpt(b"")


def test_a_hostile_path_of_a_megabyte_is_refused_in_linear_time() -> None:
    for path in (b'""' * 500_000 + b" ", b"\\a" * 500_000 + b" ", b'"' + b"a" * 1_000_000):
        with pytest.raises(ValueError, match="where none may be") as caught:
            commands.rcpt(path)
        assert len(str(caught.value)) < 300


def test_an_error_shows_eighty_octets_of_a_path_and_none_of_its_escape_sequences() -> None:
    with pytest.raises(ValueError) as caught:
        commands.mail(b"\x1b" + b"a" * 79 + b"b")
    assert str(caught.value).endswith("may be: " + repr("\\x1b" + "a" * 79))


@given(st.binary(max_size=40), st.booleans())
def test_whatever_gets_through_is_one_line_with_one_path(path: bytes, utf8: bool) -> None:
    try:
        line = commands.mail(path, utf8=utf8)
    except UnicodeError:
        raise AssertionError("a bare UnicodeError") from None
    except ValueError:
        return
    assert line == b"MAIL FROM:<" + path + b">\r\n"
    assert not set(line[:-2]) & {*range(0x20), 0x7F}


# -- an envelope in one go


@pytest.mark.parametrize("size", [None, 1024])
@pytest.mark.parametrize("eightbit", [False, True])
@given(
    st.lists(
        st.one_of(st.text(max_size=6), st.sampled_from(["", "a@b", "\n", "a@b\nc@d", "a b", "ü", "\udc80"])),
        max_size=4,
    ),
    st.integers(0, 4),
)
@example(["", "a@b"], 1)
@example(["x@y", "a@b", "c@d"], 2)
def test_an_envelope_in_one_go_is_what_would_be_said_line_by_line_or_nothing(
    size: int | None, eightbit: bool, paths: list[str], recipients: int
) -> None:
    octets = commands.envelope("\n".join(paths), recipients, size, eightbit=eightbit)
    if octets is None:
        assert paths not in (["", "a@b"], ["x@y", "a@b", "c@d"]) or recipients != len(paths) - 1
        return
    options = [] if size is None else [f"SIZE={size}"]
    sender, *to = "\n".join(paths).encode().split(b"\n")
    assert len(to) == recipients
    said = commands.mail(sender, [*options, "BODY=8BITMIME"] if eightbit else options) + commands.rcpts(to)
    assert octets == said


@pytest.mark.parametrize(
    ("paths", "recipients"),
    [
        ("a@b", 0),
        ("a@b\n", 1),
        ("a@b\nc@d\n", 2),
        ("a@b\n\nc@d", 2),
        ("a@b\nc@d\nx@y", 1),
        ("a@b\nc@d\nx@y", 3),
        ("a@b\nc@d>\nx@y", 2),
        ("a@b\nc@d\r", 1),
        ("a@b\nü@d", 1),
        ("a@b\n\udc80@d", 1),
    ],
)
def test_an_envelope_that_is_not_plain_is_not_said_in_one_go(paths: str, recipients: int) -> None:
    assert commands.envelope(paths, recipients, None, eightbit=False) is None


# -- options


def test_options_follow_the_path() -> None:
    line = commands.rcpt(b"a@b", ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;a+40b"])

    assert line == b"RCPT TO:<a@b> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+40b\r\n"


def test_options_may_come_from_a_generator_even_an_empty_one() -> None:
    assert commands.mail(b"a@b", (o for o in ["BODY=8BITMIME"])) == b"MAIL FROM:<a@b> BODY=8BITMIME\r\n"
    assert commands.mail(b"a@b", (o for o in [])) == b"MAIL FROM:<a@b>\r\n"


@pytest.mark.parametrize("options", ["SMTPUTF8", b"SMTPUTF8"])
def test_a_string_of_options_is_not_taken_for_one_option_a_letter(options: object) -> None:
    for build in (commands.mail, commands.rcpt):
        with pytest.raises(ValueError, match="pass a list"):
            build(b"a@b", options)  # type: ignore[arg-type]
    for paths in ([b"a@b", b"c@d"], [b"a@b", b'"c"@d']):
        with pytest.raises(ValueError, match="pass a list"):
            commands.rcpts(paths, options)  # type: ignore[arg-type]


def test_options_in_utf8_need_smtputf8() -> None:
    for build, verb in ((commands.mail, b"MAIL FROM"), (commands.rcpt, b"RCPT TO")):
        line = build(b"a@b", ["X-NAME=ü"], utf8=True)
        assert line == verb + b":<a@b> X-NAME=\xc3\xbc\r\n"
        with pytest.raises(ValueError, match="not one ESMTP parameter"):
            build(b"a@b", ["X-NAME=ü"])
    both = b"RCPT TO:<a@b> X-NAME=\xc3\xbc\r\nRCPT TO:<c@d> X-NAME=\xc3\xbc\r\n"
    assert commands.rcpts([b"a@b", b"c@d"], ["X-NAME=ü"], utf8=True) == both
    with pytest.raises(ValueError, match="not one ESMTP parameter"):
        commands.rcpts([b"a@b", b"c@d"], ["X-NAME=ü"])


@pytest.mark.parametrize("paths", [[b"a@b", b"c@d"], [b"a@b", b'"c d"@e', b"f@g"]])
def test_the_same_options_follow_each_of_many_paths(paths: list[bytes]) -> None:
    lines = commands.rcpts(paths, (o for o in ["NOTIFY=NEVER"]))
    assert lines == b"".join(b"RCPT TO:<" + path + b"> NOTIFY=NEVER\r\n" for path in paths)
    assert commands.rcpts(paths) == b"".join(b"RCPT TO:<" + path + b">\r\n" for path in paths)


@pytest.mark.parametrize("text", ["SIZE=10", "SMTPUTF8", "X-Y=<z>", "AUTH=<>", "1"])
def test_option_gives_the_same_text_back(text: str) -> None:
    assert commands.option(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " SIZE=10",
        "SIZE=10 BODY=8BITMIME",
        "SIZE=",
        "=10",
        "SIZE=1=0",
        "-X",
        "X_Y",
        "SIZE=10\r\nDATA",
        "SIZE=10\n",
        "X=\0",
        "X=\x7f",
        "X=a\tb",
        "X=\u0085",
        "X=\ud800",
        "Ü=1",
        b"SIZE=10",
        10,
    ],
)
@pytest.mark.parametrize("utf8", [False, True])
def test_what_is_not_exactly_one_parameter_is_refused_by_name(text: str, utf8: bool) -> None:
    with pytest.raises(ValueError, match="not one ESMTP parameter") as caught:
        commands.option(text, utf8=utf8)

    assert repr(text) in str(caught.value)
    with pytest.raises(ValueError, match="not one ESMTP parameter"):
        commands.mail(b"a@b", [text], utf8=utf8)


def test_an_option_in_utf8_needs_smtputf8() -> None:
    assert commands.rcpt(b"a@b", ["ORCPT=utf-8;jörg"], utf8=True) == (
        "RCPT TO:<a@b> ORCPT=utf-8;jörg\r\n".encode()
    )
    with pytest.raises(ValueError, match="ORCPT=utf-8;jörg"):
        commands.rcpt(b"a@b", ["ORCPT=utf-8;jörg"])


# -- the short ones


def test_the_words_without_arguments() -> None:
    assert commands.DATA == b"DATA\r\n"
    assert commands.RSET == b"RSET\r\n"
    assert commands.QUIT == b"QUIT\r\n"
    assert commands.STARTTLS == b"STARTTLS\r\n"
    assert commands.END_OF_CONTENT == b".\r\n"
    assert commands.AUTH_CANCEL == b"*\r\n"


def test_bdat_announces_octets_and_the_last_chunk() -> None:
    assert commands.bdat(1000, last=False) == b"BDAT 1000\r\n"
    assert commands.bdat(0, last=True) == b"BDAT 0 LAST\r\n"
    with pytest.raises(ValueError, match="-1 octets"):
        commands.bdat(-1, last=True)


def test_noop_and_help_take_an_argument() -> None:
    assert commands.noop() == b"NOOP\r\n"
    assert commands.noop("are you there") == b"NOOP are you there\r\n"
    assert commands.help() == b"HELP\r\n"
    assert commands.help("MAIL") == b"HELP MAIL\r\n"


def test_vrfy_and_expn_name_a_mailbox_or_a_list() -> None:
    assert commands.vrfy(b"smith") == b"VRFY smith\r\n"
    assert commands.vrfy(b"smith", utf8=True) == b"VRFY smith\r\n"
    assert commands.expn(b"a@example.com") == b"EXPN a@example.com\r\n"


def test_vrfy_and_expn_ask_for_smtputf8_where_the_name_needs_it() -> None:
    assert commands.vrfy("jörg".encode(), utf8=True) == "VRFY jörg SMTPUTF8\r\n".encode()
    assert commands.expn("jörg".encode(), utf8=True) == "EXPN jörg SMTPUTF8\r\n".encode()
    with pytest.raises(ValueError, match="without SMTPUTF8"):
        commands.vrfy("jörg".encode())


def test_nothing_to_look_up_is_refused() -> None:
    for build in (commands.vrfy, commands.expn):
        with pytest.raises(ValueError, match=r"^an empty name to look up$"):
            build(b"")


@pytest.mark.parametrize(
    ("node", "line"),
    [
        ("example.org", b"ETRN example.org\r\n"),
        ("My_Host.Example", b"ETRN My_Host.Example\r\n"),
        ("@example.org", b"ETRN @example.org\r\n"),
        ("#a_queue", b"ETRN #a_queue\r\n"),
        ("bücher.example", b"ETRN xn--bcher-kva.example\r\n"),
        ("@bücher.example", b"ETRN @xn--bcher-kva.example\r\n"),
    ],
)
def test_etrn_names_a_node_those_below_it_or_a_queue(node: str, line: bytes) -> None:
    assert commands.etrn(node) == line


# -- auth


def test_auth_without_and_with_an_initial_response() -> None:
    assert commands.auth("CRAM-MD5") == b"AUTH CRAM-MD5\r\n"
    assert commands.auth("plain", b"\0u\0p") == b"AUTH PLAIN AHUAcA==\r\n"


def test_an_empty_initial_response_is_an_equals_sign() -> None:
    assert commands.auth("EXTERNAL", b"") == b"AUTH EXTERNAL =\r\n"


def test_a_response_is_one_line_of_base64_however_long() -> None:
    response = bytes(range(256)) * 16

    line = commands.auth_response(response)

    assert line.count(b"\n") == 1
    assert base64.b64decode(line[:-2], validate=True) == response
    assert commands.auth_response(b"") == b"\r\n"


@pytest.mark.parametrize("name", ["", "PLAIN X", "PLAIN\r\n", "A" * 21, "plaın", "PLÄIN", "A.B"])
def test_a_mechanism_must_have_a_mechanisms_name(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a SASL mechanism"):
        commands.auth(name)


def test_a_wrong_mechanism_does_not_show_the_password_in_a_traceback_with_locals() -> None:
    with pytest.raises(ValueError) as caught:
        commands.auth("NO GOOD", PASSWORD.encode())

    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert PASSWORD not in "".join(told.format())


# -- raw


def test_raw_joins_a_verb_and_its_arguments_as_smtplib_does() -> None:
    assert commands.raw("XCLIENT", "ADDR=1.2.3.4") == b"XCLIENT ADDR=1.2.3.4\r\n"
    assert commands.raw("NOOP") == b"NOOP\r\n"
    assert commands.raw("") == b"\r\n"


def test_raw_lets_utf8_through_only_when_asked() -> None:
    assert commands.raw("VRFY", "jörg", utf8=True) == "VRFY jörg\r\n".encode()
    with pytest.raises(ValueError, match="arguments"):
        commands.raw("VRFY", "jörg")


@pytest.mark.parametrize("octet", CONTROLS)
@pytest.mark.parametrize("utf8", [False, True])
def test_a_raw_command_is_one_line(octet: bytes, utf8: bool) -> None:
    text = octet.decode()
    with pytest.raises(ValueError, match="command: a control"):
        commands.raw(f"NOOP{text}", utf8=utf8)
    with pytest.raises(ValueError, match="arguments: a control"):
        commands.raw("NOOP", f"x{text}DATA", utf8=utf8)
    with pytest.raises(ValueError, match="arguments: a control"):
        commands.noop(text)
    with pytest.raises(ValueError, match="arguments: a control"):
        commands.help(text)


@pytest.mark.parametrize("text", ["\u0085", "\udc80"])
def test_raw_refuses_c1_and_what_has_no_utf8_form(text: str) -> None:
    with pytest.raises(ValueError, match="a control character") as caught:
        commands.raw("NOOP", text, utf8=True)

    assert not isinstance(caught.value, UnicodeError)


def test_base64_with_its_usual_newline_is_refused_without_being_shown() -> None:
    response = base64.encodebytes(PASSWORD.encode()).decode()

    with pytest.raises(ValueError) as caught:
        commands.raw("AUTH PLAIN", response)

    assert response.strip() not in told(caught.value)


def test_a_line_of_512_octets_fits_and_one_more_does_not() -> None:
    assert commands.fits(b"x" * 510 + b"\r\n")
    assert not commands.fits(b"x" * 511 + b"\r\n")
