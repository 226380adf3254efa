"""The catalogue: what each type lets into the clear, and what a tenant may add."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.audit.producer import CATALOGUE, PAYLOAD, access, forged, opened, received, signed
from tlog.audit import CatalogueError, Draft, EventRefused, load_catalogue
from tlog.audit.catalogue import Subjects
from tlog.audit.sdjwt import disclose

ALICE = [[disclose("id", "alice@example.com")]]


def refused(payload: dict[str, Any]) -> EventRefused:
    with pytest.raises(EventRefused) as caught:
        opened(forged(ALICE, payload=payload))
    return caught.value


def test_the_event_that_the_refusals_start_from_is_fine() -> None:
    event = opened(forged(ALICE))
    assert event.occurred_at.isoformat() == "2026-01-31T17:30:00+00:00"
    assert (event.producer, event.seq) == ("shop", 1)
    assert event.subject_ids() == ["alice@example.com"]


@pytest.mark.parametrize("field", sorted(PAYLOAD.keys() - {"_sd_alg", "type", "schema_version"}))
def test_what_is_required_is_missed_by_name(field: str) -> None:
    assert refused({field: None}).field == field


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("type", "request.eaten", "no type of the catalogue"),
        ("type", ["request.received"], "no type of the catalogue"),
        ("schema_version", 2, "version 2 of request.received is not known"),
        ("schema_version", True, "version True of"),
        ("request_type", "destroy", "one of access_admt"),
        ("request_type", 7, "one of"),
        ("channel", "", "one of"),
        ("request_id", "R" * 129, "the limit is 128"),
        ("request_id", "", "not empty"),
        ("request_id", 17, "a string"),
        ("request_id", "R\n1", "control character"),
        ("request_id", "R\u20281", "control character"),
        ("event_id", "019aa000-0000-4000-8000-000000000001", "version 7"),
        ("event_id", "019AA000-0000-7000-8000-000000000001", "version 7"),
        ("tenant", "other", "this is the log of acme"),
        ("tenant", "Acme", "a name of"),
        ("producer_id", "till", "signed by a key of shop"),
        ("producer_seq", 0, "at least 1"),
        ("producer_seq", 1.0, "an integer"),
        ("producer_seq", True, "an integer"),
        ("producer_seq", 1 << 53, "below 2"),
        ("occurred_at", "2026-01-31T09:30:00", "with an offset"),
        ("occurred_at", "2026-01-31 09:30:00Z", "RFC 3339"),
        ("occurred_at", "2026-01-31T09:30:00-00:00", "unknown one"),
        ("occurred_at", "2026-01-31T09:30:00PST", "RFC 3339"),
        ("occurred_at", "2026-02-30T09:30:00Z", "no such time"),
        ("occurred_at", "2026-01-31T09:30:60Z", "no such time"),
        ("occurred_at", "2026-01-31T09:30:00+25:00", "no such time"),
        ("occurred_at", "0001-01-01T00:00:00+10:00", "no such time"),
        ("occurred_at", 1769851800, "a string"),
        ("actor", "eve", "it is personal: disclose it"),
        ("details", {"a": 1}, "it is personal: disclose it"),
        ("colour", "red", "does not declare it public"),
        ("purposes", ["x"], "request.received does not declare it public"),
        ("id", "x", "does not declare it public"),
        ("...", "x", "does not declare it public"),
        ("by_agent", "yes", "true or false"),
        ("agent_authority", "he says so", "one of confirmed_by_consumer"),
        ("appeal_outcome", "granted", "request.received does not declare it public"),
        ("retention_class", "access", "ends before requests"),
        ("retention_class", "forever", "no retention class"),
        ("_sd_alg", "sha-512", "only sha-256"),
        ("_sd_alg", None, "only sha-256"),
        ("_sd", "x", "digests"),
        ("_sd", ["x"], "no SHA-256 digest"),
        ("subjects", {}, "list of at most"),
        ("subjects", [{"_sd": [], "id": "alice"}], "holds `_sd` and nothing else"),
        ("purpose", "ask alice@example.com", "an e-mail address"),
        ("request_id", "4111-1111-1111-1111", "a card number"),
        ("jurisdiction", "078-05-1120", "a social security number"),
        ("legal_basis", "call +1 415 555 0100", "a telephone number"),
        ("action", "GET from 192.0.2.7", "an IP address"),
    ],
)
def test_a_wrong_claim_is_refused_by_name(field: str, value: Any, said: str) -> None:
    refusal = refused({field: value})
    assert refusal.field.partition("[")[0] == field
    assert said in str(refusal)


def test_a_request_is_about_somebody() -> None:
    with pytest.raises(EventRefused, match="is about somebody") as caught:
        opened(forged([]))
    assert caught.value.field == "subjects"


def test_retention_may_be_longer() -> None:
    opened(forged(ALICE, payload={"retention_class": "operations"}))


OWN = """
version = 1
[retention]
orders = { months = 12 }
requests = { months = 24 }
[claims]
order_id = { kind = "string", max = 32 }
gift = { kind = "boolean" }
card = { personal = true, kind = "string", max = 19 }
[types."order.placed"]
version = 3
retention = "orders"
required = ["order_id", "card"]
optional = ["gift"]
"""


def test_a_tenant_adds_types_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "types.toml").write_text(OWN)
    catalogue = load_catalogue(tmp_path / "types.toml")
    assert catalogue.retention["requests"] == 24
    assert catalogue.types.keys() > CATALOGUE.types.keys()
    draft = access(
        type="order.placed",
        schema_version=3,
        public={"order_id": "7", "gift": True},
        personal={"card": "4111111111111111", "colour": "red"},
    )
    event = opened(signed(draft, catalogue=catalogue), catalogue=catalogue)
    assert {d.name: d.value for d in event.shared} == dict(draft.personal)
    with pytest.raises(EventRefused) as caught:
        opened(signed(draft, catalogue=catalogue))
    assert caught.value.field == "type"
    for personal, said in [({}, "requires it, disclosed"), ({"card": "4" * 20}, "limit is 19")]:
        with pytest.raises(EventRefused, match=said) as caught:
            signed(access(**{**vars_of(draft), "personal": personal}), catalogue=catalogue)
        assert caught.value.field == "card"


BUMPED = """
version = 1
[retention]
orders = { months = 12 }
[claims]
order_id = { kind = "string", max = 32 }
card = { personal = true, kind = "string", max = 19 }
[[types."order.placed"]]
version = 10
retention = "requests"
required = ["order_id"]
tokens = "evidence"
[[types."order.placed"]]
retention = "orders"
required = ["card"]
[[types."order.placed"]]
version = 2
retention = "orders"
subjects = "none"
[types."order.sent"]
retention = "access"
"""


def test_a_type_has_any_number_of_versions_each_with_settings_of_its_own() -> None:
    catalogue = CATALOGUE.extended(BUMPED)
    versions = {v: kind for (name, v), kind in catalogue.types.items() if name == "order.placed"}
    assert {
        v: (kind.retention, kind.tokens.value, kind.subjects.value, kind.disclosed)
        for v, kind in versions.items()
    } == {
        1: ("orders", "erasable", "optional", {"card"}),
        2: ("orders", "erasable", "none", frozenset()),
        10: ("requests", "evidence", "optional", frozenset()),
    }
    assert catalogue.newest_of("order.placed") is versions[10]
    assert catalogue.newest_of("order.sent").version == 1
    assert all(kind.version == 1 for kind in CATALOGUE.newest.values())
    with pytest.raises(EventRefused, match="is no type"):
        catalogue.newest_of("order.paid")


@pytest.mark.parametrize(
    ("version", "public", "personal", "subjects", "field"),
    [
        (None, {"order_id": "7"}, {}, [{"id": "a"}], ""),  # the newest
        (10, {"order_id": "7"}, {}, [], ""),
        (1, {}, {"card": "4111"}, [{"id": "a"}], ""),
        (2, {}, {}, [], ""),
        (None, {}, {"card": "4111"}, [], "order_id"),
        (1, {"order_id": "7"}, {"card": "4111"}, [], "order_id"),
        (1, {}, {}, [], "card"),
        (2, {}, {}, [{"id": "a"}], "subjects"),
        (3, {}, {}, [], "schema_version"),
        (0, {}, {}, [], "schema_version"),
    ],
)
def test_an_event_is_held_against_its_own_version(
    version: int | None, public: Any, personal: Any, subjects: Any, field: str
) -> None:
    catalogue = CATALOGUE.extended(BUMPED)
    draft = Draft("order.placed", public, personal, subjects, schema_version=version)
    if not field:
        event = opened(signed(draft, catalogue=catalogue), catalogue=catalogue)
        assert event.type is catalogue.types["order.placed", version or 10]
        return
    with pytest.raises(EventRefused) as caught:
        signed(draft, catalogue=catalogue)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (("version = 2\n", ""), "types.order.placed[2].version", "version 1 is defined already"),
        (("version = 2\n", "version = 10\n"), "types.order.placed[2].version", "version 10 is"),
        (("version = 2\n", "version = true\n"), "types.order.placed[2].version", "an integer"),
        (("version = 2\n", "versions = 2\n"), "types.order.placed[2].versions", "not a setting"),
        (('["card"]', '["cards"]'), "types.order.placed[1].required", "is no claim"),
        (('"requests"', '"none"'), "types.order.placed[0].retention", "names no retention"),
        (('[types."order.sent"]', '[[types."Order"]]'), "types.Order", "a name like"),
        (('[types."order.sent"]', '[[types."log.read"]]'), "types.log.read", "tlog's own"),
        (('[types."order.sent"]', '[types]\n"a.b" = []\n[more]'), "types.a.b", "a table, or one"),
        (('[types."order.sent"]', '[types]\n"a.b" = [1]\n[more]'), "types.a.b[0]", "a table"),
        (
            ('[types."order.sent"]', '[types."order.sent".v1]'),
            "types.order.sent.retention",
            "names no",
        ),
    ],
)
def test_versions_that_cannot_be_used_are_refused(
    change: tuple[str, str], field: str, said: str
) -> None:
    assert change[0] in BUMPED
    with pytest.raises(CatalogueError, match=re.escape(said)) as caught:
        CATALOGUE.extended(BUMPED.replace(*change, 1))
    assert caught.value.field == field


@pytest.mark.parametrize("second", ['[types."order.placed"]', '[[types."order.placed"]]'])
def test_who_adds_a_version_for_the_first_time_is_told_how(second: str) -> None:
    with pytest.raises(CatalogueError, match=r'is a block \[\[types\."NAME"\]\]'):
        CATALOGUE.extended(f'{OWN}{second}\nversion = 4\nretention = "orders"\n')
    both = OWN.replace('[types."order.placed"]', '[[types."order.placed"]]')
    both += '[[types."order.placed"]]\nversion = 4\nretention = "orders"\n'
    assert CATALOGUE.extended(both).newest_of("order.placed").version == 4


def vars_of(draft: Any) -> dict[str, Any]:
    return {name: getattr(draft, name) for name in draft.__slots__}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("version = 1\n[ret", "version = 2\n[ret"), "version"),
        (("months = 24", "months = 23"), "retention.requests"),
        (("months = 12", "months = 0"), "retention.orders"),
        (("months = 12", "months = 12, days = 1"), "retention.orders"),
        (('order_id = { kind = "string"', 'purpose = { kind = "string"'), "claims.purpose"),
        (('order_id = { kind = "string"', '_sd = { kind = "string"'), "claims._sd"),
        (("max = 32", "max = 5000"), "claims.order_id.max"),
        (("max = 32", "least = 1"), "claims.order_id.least"),
        (("personal = true", "personal = 1"), "claims.card.personal"),
        (('"boolean"', '"any"'), "claims.gift.kind"),
        (('"boolean"', '"maybe"'), "claims.gift.kind"),
        (('"boolean"', '"enum"'), "claims.gift.values"),
        (('"order.placed"', '"request.received"'), "types.request.received"),
        (('"order.placed"', '"request.paid"'), "types.request.paid.retention"),
        (('"order.placed"', '"Order"'), "types.Order"),
        (("version = 3", "version = 0"), "types.order.placed.version"),
        (('retention = "orders"', 'retention = "none"'), "types.order.placed.retention"),
        (('optional = ["gift"]', 'optional = ["present"]'), "types.order.placed.optional"),
        (('["gift"]', '["gift", "gift"]'), "types.order.placed.optional"),
        (('optional = ["gift"]', "optional = 7"), "types.order.placed.optional"),
        (('optional = ["gift"]', 'tokens = "all"'), "types.order.placed"),
        (('optional = ["gift"]', "secret = 1"), "types.order.placed.secret"),
        (("[retention]", "[envelope]\nrequired = []\n[retention]"), "envelope"),
        (("[retention]", "[more]\n[retention]"), "more"),
        (("[claims]", "[claims"), ""),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_setting(
    change: tuple[str, str], field: str
) -> None:
    assert change[0] in OWN
    with pytest.raises(CatalogueError) as caught:
        CATALOGUE.extended(OWN.replace(*change, 1))
    assert caught.value.field == field


def test_a_file_is_bounded_and_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "types.toml"
    with pytest.raises(CatalogueError, match="No such file"):
        load_catalogue(path)
    path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(CatalogueError, match="longer than"):
        load_catalogue(path)
    path.write_bytes(b"\xff")
    with pytest.raises(CatalogueError, match="utf-8"):
        load_catalogue(path)


def test_what_a_producer_would_be_refused_is_not_signed() -> None:
    with pytest.raises(EventRefused) as caught:
        signed(received(public={"request_id": "R-1", "request_type": "delete"}))
    assert caught.value.field == "channel"


ASKED = {"request_id": "R-1"}
CONSENT = {
    "purposes": ["newsletter"],
    "notice_id": "privacy",
    "notice_version": "3",
    "notice_sha256": "ab" * 32,
    "controller": "Acme",
    "data_categories": ["identifiers"],
    "recipients": ["Mailer"],
    "jurisdiction": "US-CA",
    "consent_method": "checkbox",
    "valid_from": "2026-01-31T09:30:00Z",
    "valid_until": "2027-01-31T09:30:00Z",
    "consent_record_id": "C-1",
    "consent_receipt_id": "C-1-a",
}


# A fact that the law asks to be kept: what it says in the clear, and what only to whom it is shown.
@pytest.mark.parametrize(
    ("type_name", "public", "personal"),
    [
        pytest.param(
            "request.received",
            ASKED
            | {"request_type": "opt_out_sale_share", "channel": "agent", "by_agent": True}
            | {"agent_authority": "signed_permission"},
            {"agent_id": "Helper", "agent_request_id": "H-7", "permission": "I, Alice, permit"},
            id="an agent's permission (7063)",
        ),
        pytest.param(
            "request.verified",
            ASKED | {"data_points": 3, "declaration_signed": True},
            {"declaration": "under penalty of perjury: Alice"},
            id="a signed declaration (7062)",
        ),
        pytest.param(
            "request.verified",
            ASKED,
            {"age_group": "under_13", "parent": "Carol", "parental_method": "video call"},
            id="the request of a parent (7070)",
        ),
        pytest.param(
            "consent.given",
            CONSENT,
            {"age_group": "under_13", "parent": "Carol", "parental_method": "signed form"},
            id="the consent of a parent (7070)",
        ),
        pytest.param(
            "request.received",
            ASKED | {"request_type": "opt_in", "channel": "webform"},
            {"age_group": "13_to_15"},
            id="an opt-in at 13 to 15 (7071)",
        ),
        pytest.param(
            "delete.notice_impossible",
            ASKED | {"reason": "too many", "infeasible": "disproportionate_effort"},
            {"explanation": "Dear Alice, we sold to 9000 of them, and"},
            id="a disproportionate effort (7022)",
        ),
        pytest.param(
            "delete.processor_notified",
            ASKED | {"recipient": "Subprocessor", "controller": "Acme"},
            {},
            id="a processor that tells its own (7022)",
        ),
        pytest.param(
            "request.partially_denied",
            ASKED
            | {"denial_basis": "exempt", "exemption": "1798.145(a)", "remainder_deleted": True}
            | {"appeal_offered": True},
            {"explanation": "Dear Alice"},
            id="a denial in part (7022)",
        ),
        pytest.param(
            "correct.applied",
            ASKED | {"system": "crm", "recipients": ["Mailer"]},
            {"documents": ["passport of Alice"], "circumstances": "she is right"},
            id="the documents of a correction (7023)",
        ),
        pytest.param(
            "request.denied",
            ASKED | {"denial_basis": "suspected_fraud", "reason": "a pattern of such requests"},
            {"circumstances": "he is not", "documents": "forged"},
            id="a denial for fraud (7023)",
        ),
        pytest.param("request.appealed", ASKED | {"appeal_id": "A-1"}, {}, id="an appeal"),
        pytest.param(
            "request.appeal_resolved",
            ASKED | {"appeal_id": "A-1", "appeal_outcome": "partially_granted"},
            {"explanation": "Dear Alice"},
            id="what came of an appeal",
        ),
        pytest.param("consent.given", CONSENT, {"receipt": "Alice, you said"}, id="a consent"),
        pytest.param("consent.renewed", CONSENT, {"receipt": "Alice, again"}, id="renewed"),
        pytest.param(
            "consent.refused",
            {n: v for n, v in CONSENT.items() if not n.startswith("valid_")},
            {"receipt": "Alice, you said no"},
            id="a refusal",
        ),
        pytest.param(
            "consent.withdrawn",
            {n: v for n, v in CONSENT.items() if n[:6] not in ("notice", "valid_")},
            {"receipt": "Alice, you said no more"},
            id="a withdrawal",
        ),
        pytest.param(
            "assessment.completed",
            {"assessment_id": "RA-1", "document_sha256": "ab" * 32, "processing": "profiling"}
            | {"processing_from": "2026-03-01T00:00:00Z", "due_at": "2029-03-01T00:00:00Z"},
            {"attested_by": "Carol"},
            id="a risk assessment (7150)",
        ),
        pytest.param(
            "assessment.updated",
            {"assessment_id": "RA-1", "material_change_at": "2026-03-01T00:00:00Z"},
            {},
            id="a material change (7155)",
        ),
        pytest.param(
            "assessment.submitted",
            {"assessment_id": "RA-1", "recipient": "Agency"},
            {"attested_by": "Carol"},
            id="an attestation (7157)",
        ),
        pytest.param(
            "audit.completed",
            {"audit_id": "CA-1", "components": ["audit-log management"]}
            | {"period_from": "2027-01-01T00:00:00Z", "period_until": "2028-01-01T00:00:00Z"},
            {"attested_by": "Dan, of Auditors"},
            id="a cybersecurity audit (7122)",
        ),
        pytest.param(
            "audit.certified",
            {"audit_id": "CA-1", "recipient": "Agency", "document_sha256": "ab" * 32},
            {"attested_by": "Carol"},
            id="a certification (7124)",
        ),
    ],
)
def test_what_the_law_asks_for_can_be_said(
    type_name: str, public: dict[str, Any], personal: dict[str, Any]
) -> None:
    about_somebody = CATALOGUE.types[type_name, 1].subjects is not Subjects.NONE
    subjects = [{"id": "alice@example.com"}] if about_somebody else []
    event = opened(signed(Draft(type_name, public, personal, subjects)))
    assert public.items() <= event.claims.items()
    assert {each.name: each.value for each in event.shared} == personal
    for name, value in personal.items():
        assert name in CATALOGUE.claims
        with pytest.raises(EventRefused, match="it is personal: disclose it") as caught:
            signed(Draft(type_name, public | {name: value}, {}, subjects))
        assert caught.value.field == name


def test_what_is_personal_is_checked_too() -> None:
    for claims in ({"age_group": "12"}, {"agent_id": 7}, {"parental_method": ""}):
        with pytest.raises(EventRefused) as caught:
            signed(received(personal=claims))
        assert caught.value.field == min(claims)
