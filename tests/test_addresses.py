"""Envelope addresses: what goes out as it is, what is taken off, and what never leaves."""

from __future__ import annotations

import email.utils
import re
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiosmtpclient import addresses
from aiosmtpclient.addresses import (
    Address,
    Recipients,
    domain_to_ascii,
    header_needs_smtputf8,
    header_with_ascii_domains,
    mailboxes,
    quoteaddr,
    recipient,
    sender,
)


@pytest.fixture(autouse=True)
def _no_cache():
    domain_to_ascii.cache_clear()
    yield
    domain_to_ascii.cache_clear()


# What goes out


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("a@b", b"a@b"),
        ("Bob.Smith+tag@Example.ORG", b"Bob.Smith+tag@Example.ORG"),
        ("!#$%&'*+/=?^_`{|}~-@x", b"!#$%&'*+/=?^_`{|}~-@x"),
        # Real mailboxes have them, though RFC 5321 does not.
        ("a..b.@docomo.example", b"a..b.@docomo.example"),
        ("a@under_score.example.", b"a@under_score.example."),
        ("postmaster", b"postmaster"),
        ('"a b"', b'"a b"'),
        ('"a b"@x', b'"a b"@x'),
        ('"a\\"b\\\\"@x', b'"a\\"b\\\\"@x'),
        ('"<,>@:;()"@x', b'"<,>@:;()"@x'),
        ('""@x', b'""@x'),
        ("u@[127.0.0.1]", b"u@[127.0.0.1]"),
        ("u@[IPv6:::1]", b"u@[IPv6:::1]"),
        ("jörg@example.org", "jörg@example.org".encode()),
        ('"jörg b"@example.org', '"jörg b"@example.org'.encode()),
        ("bob@bücher.example", b"bob@xn--bcher-kva.example"),
        ("jörg@bücher.example", "jörg@xn--bcher-kva.example".encode()),
        ("bob@xn--bcher-kva.example", b"bob@xn--bcher-kva.example"),
    ],
)
def test_an_address_goes_out_as_it_is(given: str, path: bytes) -> None:
    assert recipient(given).path == path
    assert sender(f"Somebody <{given}>").path == path


@pytest.mark.parametrize(
    "given",
    [
        "Bob <b@x>",
        "<b@x>",
        "Bob<b@x>",
        '"Bob, Jr" <b@x>',
        '"Bob \\"<evil@y>\\"" <b@x>',
        "Bob (of x, <y@z>) Smith <b@x>",
        "b@x (Bob)",
        "b@x (Bob) (the\\) builder) ",
        "Bob <b@x> (work)",
        "Bob J. O'Neil <b@x>",
        "Jörg Müller <b@x>",
        "=?utf-8?q?J=C3=B6rg?= <b@x>",
        "b@x <b@x>",
        "Bob [EXT] <b@x>",
        # The pieces of "a@x, b@x".split(",")
        " b@x",
        "b@x ",
    ],
)
def test_what_is_no_part_of_the_address_is_taken_off(given: str) -> None:
    assert recipient(given).path == b"b@x"
    assert recipient(given).text is given


def test_an_address_keeps_what_was_given_and_what_goes_out() -> None:
    assert recipient("Bob <b@x>") == Address("Bob <b@x>", b"b@x", needs_smtputf8=False)
    assert recipient("Jörg <jörg@Bücher.example>") == Address(
        "Jörg <jörg@Bücher.example>", "jörg@xn--bcher-kva.example".encode(), needs_smtputf8=True
    )


def test_an_address_that_others_hold_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        recipient("b@x").path = b"c@x"  # type: ignore[misc]


@pytest.mark.parametrize("given", ["", "<>", " <> "])
def test_only_a_sender_may_be_null(given: str) -> None:
    assert sender(given).path == b""
    assert not sender(given).needs_smtputf8
    with pytest.raises(ValueError, match="only a sender may be empty"):
        recipient(given)


def test_smtputf8_is_needed_for_the_local_part_only() -> None:
    assert recipient("jörg@x").needs_smtputf8
    assert recipient("jörg").needs_smtputf8
    assert not recipient("bob@bücher.example").needs_smtputf8
    assert not recipient("Jörg <bob@x>").needs_smtputf8


def test_a_string_of_a_subclass_is_an_address_too() -> None:
    class Header(str):
        __slots__ = ()

    assert recipient(Header("Bob <b@x>")).path == b"b@x"
    assert recipient(Header("b@x")).path == b"b@x"


# What never leaves


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("a@x\r\nDATA", "it contains CR"),
        ("a\n@x", "it contains LF"),
        ('"a\r\nDATA\r\n"@x', "it contains CR"),
        ("Bob\r\n <a@x>", "it contains CR"),
        ("a\0@x", "it contains NUL"),
        ("a\t@x", "it contains a tab"),
        ("a\x07@x", "the control character U\\+0007"),
        ("a@x\x7f", "the control character U\\+007F"),
        ("a\x85@x", "the control character U\\+0085"),
        ("a\u2028@x", "the control character U\\+2028"),
        ("a\udcf6@x", "it contains an octet that could not be decoded$"),
        ("a b@x", "a space outside quotes"),
        ("a@x SIZE=1", "a space outside quotes"),
        ("a\u00a0b@x", "a space outside quotes"),
        ("Bob < b@x>", "a space outside quotes"),
        ("a@x>", "an angle bracket outside quotes"),
        ("<a@x", "an angle bracket outside quotes"),
        ("<<a@x>>", "an angle bracket outside quotes"),
        ("<a@x>b", "an angle bracket outside quotes"),
        ("a@x> SIZE=1 <", "an angle bracket outside quotes"),
        ("<@a:b@c>", "a source route"),
        ("@a,@b:c@d", "a source route"),
        ("Bob <@a:b@c>", "a source route"),
        ("a@x, b@y", "looks like a list"),
        ("a@x; b@y", "looks like a list"),
        ("Bob, Jr <b@x>", "looks like a list"),
        ("Bob <>", "no address in the angle brackets"),
        ("@x", "nothing stands before the @"),
        ("a@", "nothing stands behind the @"),
        ("<a@>", "nothing stands behind the @"),
        ("a@b@c", "more than one @"),
        ('"a@x', "a quote is not closed"),
        ('"a"b"@x', "a quote is not closed"),
        ("a(b)@x", "must be quoted"),
        ("a(b@x", "a parenthesis outside quotes"),
        ("a\\b@x", "must be quoted"),
        ("a:b@x", "must be quoted"),
        ("u@[127.0.0.1", "a broken address literal"),
        ("u@[1 2]", "a space outside quotes"),
        ('"a"b@x', "must be quoted"),
    ],
)
def test_what_does_not_fit_is_refused_and_never_rewritten(given: str, words: str) -> None:
    for read in (sender, recipient, quoteaddr):
        with pytest.raises(ValueError, match=f"^{re.escape(ascii(given))} is no address: .*{words}"):
            read(given)


@pytest.mark.parametrize("number", [0xD800, 0xDC80, 0xDFFF])
def test_what_octets_became_that_were_no_text_is_called_so(number: int) -> None:
    with pytest.raises(ValueError, match=r"it contains an octet that could not be decoded$"):
        recipient(f"a{chr(number)}@x")


@pytest.mark.parametrize(
    ("length", "shown"), [(100, repr("a" * 98 + " b")), (101, repr("a" * 99 + " ") + "…")]
)
def test_an_error_repeats_a_hundred_characters_of_an_address(length: int, shown: str) -> None:
    with pytest.raises(ValueError) as caught:
        recipient("a" * (length - 2) + " b")
    assert str(caught.value) == f"{shown} is no address: it has a space outside quotes"


@pytest.mark.parametrize("given", [None, b"a@x", 5, ["a@x"]])
def test_an_address_is_text(given: object) -> None:
    for read in (sender, recipient):
        with pytest.raises(TypeError, match=f"an address is a str, not {type(given).__name__}$"):
            read(given)  # type: ignore[arg-type]


@given(
    st.one_of(
        st.text(max_size=40),
        st.text(alphabet='ab@<>"\\() \r\n\0.,:;[]ü＠＜\u3000', max_size=20),
        st.from_regex(r'[a-c"\\ ]{0,6}@[a-z\u00e4\uff20\uff1c.]{0,6}', fullmatch=True),
    )
)
@example("a@b＞c.de")
@example("a@ä＠b.de")
@example('"\\\n"@x')
def test_no_text_whatsoever_breaks_out_of_the_angle_brackets(text: str) -> None:
    try:
        path = sender(text).path
    except ValueError:
        return
    inside = False
    escaped = False
    for octet in path:
        assert octet >= 0x20
        assert octet != 0x7F
        if escaped:
            escaped = False
        elif inside and octet == ord("\\"):
            escaped = True
        elif octet == ord('"'):
            inside = not inside
        elif not inside:
            assert octet not in b" <>\\"
    assert not inside
    assert path.rpartition(b"@")[2].isascii() or b"@" not in path


@pytest.mark.parametrize("piece", ['"', '"\\', "(", "a ", "<", "@", "a@", "((", "[", "ö", "<>"])
def test_hostile_repetition_costs_linear_time(piece: str) -> None:
    # A quadratic scan of this would take minutes.
    text = piece * (200_000 // len(piece))
    for read in (recipient, mailboxes, header_needs_smtputf8, header_with_ascii_domains):
        try:
            read(text)
        except ValueError:
            continue


# Many recipients


class Marked(str):
    """An address that is more than its text."""

    __slots__ = ()


PLAIN_TEXTS = ["a@x", "b@y", "a@x"]


@pytest.mark.parametrize("texts", [PLAIN_TEXTS, [*PLAIN_TEXTS, "Bob <c@z>"], ["c@z"]])
def test_many_are_read_as_each_alone(texts: list[str]) -> None:
    many = Recipients.of(texts)
    assert many.texts == texts
    assert many.paths == [recipient(text).path for text in texts]
    assert (many.international, many.special, len(many)) == ("", False, len(texts))


def test_the_first_of_many_that_needs_smtputf8_is_known() -> None:
    assert Recipients.of(["a@x", "jörg@x", "ünal@x"]).international == "jörg@x"


def test_it_is_known_that_one_of_many_is_more_than_its_text() -> None:
    many = Recipients.of(["a@x", Marked("b@y")])
    assert many.special
    assert many.some([1]).special
    assert type(many.some([1]).texts[0]) is Marked


def test_no_line_end_makes_two_recipients_of_one() -> None:
    for texts in (["a@x\nb@y"], ["a@x\nb@y", "c@z"], ["c@z", "a@x\nb@y"]):
        with pytest.raises(ValueError, match="it contains LF"):
            Recipients.of(texts)


def test_some_of_many_keep_their_order_and_their_duplicates() -> None:
    some = Recipients.of(["a@x", "jörg@y", "a@x", "d@z"]).some([3, 1, 0, 0])
    assert some.texts == ["d@z", "jörg@y", "a@x", "a@x"]
    assert some.paths == [b"d@z", "jörg@y".encode(), b"a@x", b"a@x"]
    assert (some.international, some.special) == ("jörg@y", False)


# smtplib's quoteaddr


@pytest.mark.parametrize(
    ("given", "quoted"),
    [
        ("a@x", "<a@x>"),
        ("<a@x>", "<a@x>"),
        ("Bob <a@x>", "<a@x>"),
        ("", "<>"),
        ("<>", "<>"),
        ("jörg@bücher.example", "<jörg@xn--bcher-kva.example>"),
    ],
)
def test_quoteaddr_gives_a_path(given: str, quoted: str) -> None:
    assert quoteaddr(given) == quoted


# Domains


@pytest.mark.parametrize("domain", ["Example.ORG", "xn--zz", "a_b", "[IPv6:::1]", "UPPER.xn--BCHER-KVA"])
def test_an_ascii_domain_is_never_changed(domain: str) -> None:
    assert domain_to_ascii(domain) == domain


@pytest.mark.parametrize(
    ("domain", "encoded"),
    [("BÜCHER.Example", "xn--bcher-kva.example"), ("faß.de", "xn--fa-hia.de"), ("a。ä.de", "a.xn--4ca.de")],
)
def test_a_domain_becomes_a_labels_by_the_rules_of_today(domain: str, encoded: str) -> None:
    assert domain_to_ascii(domain) == encoded


@pytest.mark.parametrize("domain", ["ä..de", "ä" * 64 + ".de", "\u200dä.de", "ä＠b.de", "ä" * 300])
def test_a_domain_without_ascii_form_is_an_error(domain: str) -> None:
    with pytest.raises(ValueError, match="has no ASCII form") as caught:
        recipient(f"a@{domain}")
    assert not isinstance(caught.value, UnicodeError)


@pytest.fixture
def _without_idna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idna", None)


@pytest.mark.usefixtures("_without_idna")
def test_without_the_idna_package_the_standard_library_encodes() -> None:
    assert recipient("a@Bücher.example").path == b"a@xn--bcher-kva.example"


@pytest.mark.usefixtures("_without_idna")
@pytest.mark.parametrize("domain", ["faß.de", "FAẞ.de", "ας.gr", "a\u200db.ir"])
def test_without_the_idna_package_no_mail_goes_to_the_domain_next_door(domain: str) -> None:
    with pytest.raises(ValueError, match="needs the package 'idna'"):
        recipient(f"a@{domain}")


@pytest.mark.usefixtures("_without_idna")
@pytest.mark.parametrize("domain", ["ä＠b.de", "ä＜b.de", "ä..de"])
def test_without_the_idna_package_compatibility_forms_do_not_become_syntax(domain: str) -> None:
    with pytest.raises(ValueError, match="has no ASCII form"):
        recipient(f"a@{domain}")


# Headers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" ", []),
        ("a@x", ["a@x"]),
        ("postmaster", ["postmaster"]),
        ("a@x, b@y", ["a@x", "b@y"]),
        ("a@x,,b@y, ", ["a@x", "b@y"]),
        ("a@x,\r\n b@y,\n\tc@z", ["a@x", "b@y", "c@z"]),
        ('"Bob, Jr" <b@x>, Eve <e@y>', ["b@x", "e@y"]),
        ("b@x (Bob, the builder), c@y", ["b@x", "c@y"]),
        ("undisclosed-recipients:;", []),
        ("undisclosed-recipients: ;", []),
        ("Team: a@x, Bob <b@y>;, c@z", ["a@x", "b@y", "c@z"]),
        ('"The: Team": a@x;', ["a@x"]),
        ("(Recipient list suppressed)", []),
        ("u@[IPv6:::1], b@x", ["u@[IPv6:::1]", "b@x"]),
        ('Odd <"a>,b"@x>, "a,b"@x', ['"a>,b"@x', '"a,b"@x']),
        ("=?utf-8?q?J=C3=B6rg?= <b@x>", ["b@x"]),
        ("Jörg <jörg@bücher.example>", ["jörg@bücher.example"]),
        ("J\udcf6rg <b@x>", ["b@x"]),
    ],
)
def test_the_addresses_of_a_header_are_found(text: str, found: list[str]) -> None:
    assert mailboxes(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "a@x\nBcc: b@y",
        "just words here",
        "a@x)b@y",
        '"a@x, b@y',
        "Bob <a@x, b@y",
        "a@x, <>",
        "Foo <@r:b@x>",
        "a@x (b",
        "a@x: b@y",
        "Bob <j\udcf6rg@x>",
    ],
)
def test_no_address_of_a_header_is_guessed(text: str) -> None:
    with pytest.raises(ValueError):
        mailboxes(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Bob\x07 <b@x>", "it contains the control character U+0007"),
        ("Bob <b@x>, \0", "it contains NUL"),
        ("Bob\r\nBcc: c@y", "it contains CR"),
        ("Bob\u2028 <b@x>", "it contains the control character U+2028"),
        ('"Bob <b@x>', """'"Bob <b@x>' is not closed"""),
    ],
)
def test_a_header_with_a_control_or_an_open_end_is_no_list_of_addresses(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        mailboxes(text)
    assert str(caught.value) == f"{text!a} is no list of addresses: {words}"


def test_a_name_in_a_header_may_have_octets_that_nobody_can_decode() -> None:
    assert mailboxes("B\udcf6b <b@x>, c@y") == ["b@x", "c@y"]


@given(
    st.lists(
        st.tuples(
            st.text(alphabet='ab ,"\\;:<(ü', max_size=6), st.from_regex(r"[a-z]+@[a-z]+", fullmatch=True)
        )
    )
)
def test_what_formataddr_wrote_is_read_again(pairs: list[tuple[str, str]]) -> None:
    text = ", ".join(email.utils.formataddr(pair) for pair in pairs)
    assert mailboxes(text) == [address for _, address in pairs]


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("Jörg <bob@x>", False),
        ("bob@bücher.example", False),
        ("Bob <jörg@x>", True),
        ('"jörg b"@x', True),
        ('"jörg@x" <bob@x>', False),
        ("bob@x (jörg@x)", False),
        ('"open jörg@x', False),
    ],
)
def test_a_header_needs_smtputf8_for_a_local_part_only(text: str, needs: bool) -> None:
    assert header_needs_smtputf8(text) is needs


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("Jörg <bob@bücher.example>", "Jörg <bob@xn--bcher-kva.example>"),
        ("T: a@bü.example, b@büro.example;", "T: a@xn--b-eha.example, b@xn--bro-hoa.example;"),
        ('"a b"@bücher.example', '"a b"@xn--bcher-kva.example'),
        ('"x@bücher.example" <a@x>', '"x@bücher.example" <a@x>'),
        ("a@x (x@bücher.example)", "a@x (x@bücher.example)"),
        ("jörg@bücher.example", "jörg@bücher.example"),
        ("Bob <bob@Example.ORG>", "Bob <bob@Example.ORG>"),
    ],
)
def test_only_domains_behind_an_ascii_local_part_are_rewritten_in_a_header(text: str, changed: str) -> None:
    assert header_with_ascii_domains(text) == changed


def test_a_header_with_an_impossible_domain_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no ASCII form"):
        header_with_ascii_domains("a@ä..de")


def test_the_cache_does_not_hold_what_failed() -> None:
    with pytest.raises(ValueError):
        addresses.domain_to_ascii("ä..de")
    assert addresses.domain_to_ascii.cache_info().currsize == 0
