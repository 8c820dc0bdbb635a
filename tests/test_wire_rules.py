"""The rules of the wire that other clients break today, each with the tests that are named after it.

The rest of the rules is in the same files; this is the list of those that must never lose theirs.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent

RULES = {
    # What is known about a message
    "a 4yz or 5yz while the content is still written: refused, with that reply": (
        "delivery::test_a_refusal_in_the_middle_of_the_content_is_a_refusal_with_that_reply",
        "delivery::test_a_yes_in_the_middle_of_the_content_is_no_yes",
    ),
    "the end left, and no reply: unknown": (
        "delivery::test_an_end_without_a_reply_is_unknown",
        "delivery::test_a_3yz_to_the_end_is_unknown",
    ),
    "a 2yz to the content, then anything at all: accepted": (
        "delivery::test_an_accepted_message_stays_accepted_whatever_happens_then",
        "delivery::test_an_accepted_message_stays_accepted_when_the_close_comes_in_the_same_segment",
        "delivery::test_garbage_behind_the_final_reply_takes_the_connection_but_not_the_result",
        "delivery::test_a_tls_connection_cut_after_the_final_reply_takes_nothing_back",
        "delivery::test_a_cancellation_in_the_same_turn_as_the_final_reply_hides_nothing",
        "delivery::test_cancelled_during_the_quit_of_send_the_result_still_comes",
    ),
    # Staying in step
    "nothing is owed: a 421 is remembered, any other octet breaks the protocol": (
        "step::test_a_stray_421_closes_the_connection_and_explains_the_next_error",
        "step::test_octets_that_nobody_asked_for_are_never_taken_for_a_reply",
    ),
    "out of step: never used again without proof": (
        "step::test_a_late_reply_is_never_taken_for_the_next_command",
        "step::test_an_error_of_the_callers_own_code_inside_a_transaction_drops_the_connection",
        "step::test_tasks_cancelled_at_random_moments_never_hand_a_reply_to_somebody_else",
        "test_cancelled_with_a_reply.py::test_what_is_sent_next_is_not_taken_for_what_the_server_waits_for",
    ),
    "what is no reply is no answer": ("step::test_what_is_no_reply_is_no_answer",),
    "lines, replies and waiting have an end": (
        "step::test_a_server_that_never_stops_talking_is_left",
        "step::test_a_reply_line_may_have_8_kib_and_no_more",
        "step::test_a_challenge_may_be_longer_than_any_other_reply",
        "step::test_a_byte_now_and_then_does_not_keep_a_reply_alive",
    ),
    "the first digit decides, and no body follows a 2yz to DATA": (
        "step::test_the_body_never_follows_a_2yz_to_data",
        "step::test_a_3yz_to_mail_or_rcpt_is_no_yes",
        "pipelining::test_nobody_accepted_and_a_2yz_to_data_drops_the_connection",
    ),
    "421 anywhere: refused for now, everybody named, smtplib's classes": (
        "step::test_a_421_refuses_the_open_transaction_for_now",
        "step::test_a_421_keeps_what_was_refused_before_it",
        "step::test_a_421_to_a_verb_is_returned_and_closes",
        "lmtp::test_a_421_among_the_replies_leaves_the_rest_unknown",
    ),
    # What the caller may put on the wire
    "no command by an address, an option, a name or a raw command": (
        "caller::test_an_address_cannot_carry_a_command",
        "caller::test_an_option_cannot_carry_a_command",
        "caller::test_a_hello_name_cannot_carry_a_command",
        "caller::test_a_raw_command_is_one_command",
    ),
    "an address is never rewritten to make it fit": (
        "caller::test_a_quoted_local_part_is_never_rewritten_to_make_it_fit",
    ),
    "no recipients, or an empty one: ValueError before MAIL": (
        "caller::test_nobody_is_no_recipient",
        "caller::test_a_message_without_recipients_is_not_sent",
    ),
    "a NUL never leaves, but as BINARYMIME": (
        "caller::test_a_nul_never_leaves",
        "test_binarymime.py::test_what_arrives_is_what_was_given_to_the_octet",
    ),
    "an empty body is the terminator alone": ("caller::test_an_empty_body_is_the_terminator_alone",),
    "8-bit content without 8BITMIME: encoded by send_message, an error of sendmail": (
        "caller::test_8bit_content_is_refused_or_encoded_where_it_may_not",
        "caller::test_8bit_octets_found_in_a_stream_where_they_may_not_go_end_it_without_the_dot",
    ),
    "an international domain needs no SMTPUTF8, in envelope and headers": (
        "caller::test_smtputf8_is_used_only_where_it_is_needed",
        "caller::test_a_header_that_needs_smtputf8_asks_for_it",
    ),
    "larger than SIZE: refused here, as the server would": (
        "delivery::test_a_message_over_the_size_limit_is_refused_without_a_trip",
        "caller::test_the_size_limit_counts_what_the_server_counts",
    ),
    "no header by a header": ("caller::test_a_header_cannot_carry_another_header",),
    "Bcc never leaves, its addresses get the mail, all headers count, the message is unchanged": (
        "caller::test_blind_recipients_get_the_mail_and_nobody_sees_them",
        "caller::test_a_resent_message_goes_to_whom_it_is_resent",
        "caller::test_a_parsed_message_that_was_cut_short_at_a_bcc_is_not_sent",
        "caller::test_sendmail_changes_no_header",
        "test_message.py::test_every_to_cc_and_bcc_header_counts",
    ),
    "a local failure leaves no envelope open": ("caller::test_a_local_failure_leaves_no_envelope_open",),
    # LMTP
    "replies that never came: unknown": ("lmtp::test_recipients_without_a_reply_are_unknown",),
    # AUTH
    "another mechanism only where nobody can have forced the failure": (
        "auth::test_another_mechanism_is_not_tried_where_somebody_may_have_forced_the_failure",
        "auth::test_another_mechanism_is_tried_inside_tls",
        "auth::test_another_mechanism_is_tried_after_a_failure_on_a_local_connection",
    ),
    "a challenge that makes no sense: `*`, its reply, failure": (
        "auth::test_a_challenge_that_makes_no_sense_is_cancelled",
        "auth::test_a_server_that_never_stops_asking_is_stopped",
    ),
    "a NUL in a credential: ValueError": (
        "caller::test_a_nul_in_a_credential_is_found_before_anything_is_written",
        "auth::test_a_nul_in_the_constructors_credentials_is_a_valueerror",
    ),
    "credentials are UTF-8": ("auth::test_credentials_travel_as_utf8",),
    "no secret shows up anywhere": (
        "auth::test_a_password_shows_up_nowhere",
        "auth::test_an_auth_command_by_hand_is_masked_too",
        "auth::test_a_cancelled_login_shows_no_password_either",
        "tokens::test_tokens_and_payloads_show_up_nowhere",
        "test_sync.py::test_connecting_and_sending_are_audited_without_secrets",
    ),
    # TLS
    "octets behind the 220 to STARTTLS: no handshake": (
        "tls::test_octets_behind_the_220_stop_the_handshake_before_it_begins",
        "test_connection_in_step.py::test_a_421_behind_the_220_is_no_less_injected_than_anything_else",
    ),
    "required TLS that is not to be had: nothing is sent": (
        "tls::test_required_tls_that_is_not_to_be_had_sends_nothing",
    ),
    "verification by default, in every class": (
        "tls::test_every_class_verifies_by_default_and_sends_nothing_to_whom_it_cannot",
        "tls::test_a_certificate_that_does_not_fit_is_an_smtptlserror",
        "tls::test_the_name_to_verify_is_the_one_that_was_asked_for",
    ),
    "a handshake that fails is an SMTPTLSError, one without an end an SMTPTimeoutError": (
        "tls::test_a_handshake_that_is_cut_off_is_an_error_at_once",
        "tls::test_what_is_not_tls_is_an_smtptlserror",
        "tls::test_a_handshake_without_an_answer_is_a_timeout_and_may_be_cancelled",
    ),
    "starttls() by hand raises smtplib's classes": ("tls::test_starttls_by_hand_raises_smtplibs_classes",),
    # Time
    "an upload that moves never times out, and the final wait begins behind it": (
        "time::test_an_upload_that_makes_progress_never_times_out",
        "time::test_a_slice_that_leaves_octet_by_octet_never_times_out",
        "time::test_the_final_clock_starts_when_the_last_octet_was_handed_over",
    ),
    "cancelling returns at once": (
        "time::test_cancelling_returns_at_once_in_every_phase",
        "time::test_cancelling_a_big_upload_returns_at_once",
        "time::test_cancelling_a_quit_returns_at_once",
    ),
    "our own name is never looked up": ("time::test_our_own_name_is_never_looked_up",),
}


def names_in(name: str) -> set[str]:
    """The tests of a file, by its name, or by the last word of a file of wire rules."""
    path = HERE / (name if name.endswith(".py") else f"test_wire_rules_{name}.py")
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, functions)}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_others_break_has_its_named_test(rule: str) -> None:
    missing = [one for one in RULES[rule] if one.partition("::")[2] not in names_in(one.partition("::")[0])]
    assert not missing
