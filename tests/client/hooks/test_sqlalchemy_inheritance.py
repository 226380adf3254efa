"""The listener and classes that are derived from others: by tables joined, by one, by their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, delete, func, insert, select, update
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    mapped_column,
    relationship,
    sessionmaker,
    with_polymorphic,
)

from tests.client.hooks.conftest import Told
from tests.client.hooks.test_sqlalchemy import brief, read, wrote
from tlog.audit import EventRefused
from tlog.client import Producer
from tlog.client.hooks.sqlalchemy import SessionAudit, acting


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "customer"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    kind: Mapped[str]


class Vip(Customer):
    """Has a table beside that of customers."""

    __tablename__ = "vips"
    __mapper_args__ = {"polymorphic_identity": "vip"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("customers.id"), primary_key=True)
    passport: Mapped[str]


class Royal(Vip):
    """Two steps away."""

    __tablename__ = "royals"
    __mapper_args__ = {"polymorphic_identity": "royal"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("vips.id"), primary_key=True)
    crown: Mapped[str]


class Guest(Customer):
    """Is in the table of customers, and is watched by a name of its own."""

    __mapper_args__ = {"polymorphic_identity": "guest"}  # noqa: RUF012
    room: Mapped[str | None]


class Lead(Customer):
    """Has a table of its own, and no row in that of customers."""

    __tablename__ = "leads"
    __mapper_args__ = {"concrete": True, "polymorphic_identity": "lead"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    note: Mapped[str]


class Person(Base):
    """Not watched itself."""

    __tablename__ = "people"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    kind: Mapped[str]


class Patient(Person):
    __tablename__ = "patients"
    __mapper_args__ = {"polymorphic_identity": "patient"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    illness: Mapped[str]


class Visit(Base):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[int] = mapped_column(ForeignKey("patients.id"))
    patient: Mapped[Patient] = relationship()


class Ticket(Base):
    """Its table says that it is watched; that of what is derived from it does not."""

    __tablename__ = "tickets"
    __table_args__ = {"info": {"audit": {"subject": "who"}}}  # noqa: RUF012
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "ticket"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[str]
    kind: Mapped[str]


class Complaint(Ticket):
    __tablename__ = "complaints"
    __mapper_args__ = {"polymorphic_identity": "complaint"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("tickets.id"), primary_key=True)
    text: Mapped[str]


VIPS, ROYALS, LEADS = (Base.metadata.tables[name] for name in ("vips", "royals", "leads"))
UNSYNCHRONIZED: dict[str, Any] = {"synchronize_session": False}


@pytest.fixture
def audit(shop: Producer) -> SessionAudit:
    made = SessionAudit(shop)
    made.watch(Guest, subject="email", resource_type="guests")
    made.watch(Customer, subject="email")
    made.watch(Patient, subject="email")
    return made


@pytest.fixture
def sessions(tmp_path: Path, audit: SessionAudit) -> sessionmaker[Session]:
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(
            [
                Vip(id=1, email="vip@example.com", passport="P1"),
                Royal(id=2, email="royal@example.com", passport="P2", crown="gold"),
                Guest(id=3, email="guest@example.com", room="7"),
                Lead(id=1, email="lead@example.com", note="tall"),
                Patient(id=1, email="patient@example.com", illness="flu"),
                Person(id=2, email="person@example.com"),
                Visit(id=1, patient_id=1),
                Complaint(id=1, who="vip@example.com", text="slow"),
            ]
        )
        session.commit()
    made = sessionmaker(engine)
    audit.listen(made)
    return made


def searched(what: str) -> tuple[Any, ...]:
    return ("access.search", "select", "success", what)


def nobody(what: str) -> tuple[Any, ...]:
    return ("access.read", "select", "success", what)


def modified(action: str, what: str, *subjects: str) -> tuple[Any, ...]:
    return ("access.modify", action, "success", what, *[f"{s}@example.com" for s in subjects])


polymorphic = with_polymorphic(Customer, [Vip, Royal])
other = aliased(Vip)


@pytest.mark.parametrize(
    ("statement", "events"),
    [
        (select(Vip), [read("vip", "royal")]),
        (select(Customer), [read("vip", "royal"), read("guest", what="guests")]),
        (select(polymorphic), [read("vip", "royal"), read("guest", what="guests")]),
        (select(other), [read("vip", "royal")]),
        (select(Guest), [read("guest", what="guests")]),
        (select(Lead), [read("lead")]),
        (select(Patient), [read("patient", what="patients")]),
        (select(Person), [read("patient", what="patients")]),
        (select(Complaint), [read("vip", what="tickets")]),
        (select(Vip.passport), [nobody("customers")]),
        (select(Vip.email, Vip.passport), [read("vip", "royal")]),
        (select(other.passport), [nobody("customers")]),
        (select(polymorphic.Royal.crown), [nobody("customers")]),
        (select(Complaint.text), [nobody("tickets")]),
        (select(VIPS.c.passport), [searched("customers")]),
        (select(VIPS.alias().c.passport), [searched("customers")]),
        (select(ROYALS.c.crown), [searched("customers")]),
        (select(LEADS.c.note), [searched("customers")]),
        (select(func.max(Vip.passport)), [nobody("customers")]),
        (select(func.max(Royal.crown)), [nobody("customers")]),
        (select(func.max(Lead.note)), [nobody("customers")]),
        (select(func.max(Patient.email)), [nobody("patients")]),
        (select(func.max(Complaint.text)), [nobody("tickets")]),
        (select(func.count()).select_from(Vip), [searched("customers")]),
        (select(select(VIPS.c.passport).subquery()), [searched("customers")]),
        (select(select(VIPS.c.passport).cte()), [searched("customers")]),
        (select(Visit.id).where(Visit.id.in_(select(VIPS.c.id))), [searched("customers")]),
        (
            select(Visit.id).join(Visit.patient.and_(Patient.email == "patient@example.com")),
            [searched("patients")],
        ),
        (update(Vip).values(passport="X"), [wrote("update", "vip", "royal")]),
        (update(Vip).where(Vip.passport == "P2").values(passport="X"), [wrote("update", "royal")]),
        (update(Royal).values(crown="X"), [wrote("update", "royal")]),
        (update(Guest).values(room="8"), [modified("update", "guests", "guest")]),
        (update(Lead).values(note="X"), [wrote("update", "lead")]),
        (update(Patient).values(illness="X"), [modified("update", "patients", "patient")]),
        (
            update(Complaint).values(text="X"),
            [("access.modify", "update", "success", "tickets", "vip@example.com")],
        ),
        (update(VIPS).values(passport="X"), [wrote("update")]),
        (delete(Lead), [wrote("delete", "lead")]),
        (delete(VIPS), [wrote("delete")]),
        (delete(ROYALS), [wrote("delete")]),
        (insert(VIPS).values(id=7, passport="P7"), [wrote("insert")]),
    ],
)
def test_what_is_derived_is_watched(
    sessions: sessionmaker[Session], told: Told, statement: Any, events: list[Any]
) -> None:
    def execute(session: Session) -> None:
        result = session.execute(statement, execution_options=UNSYNCHRONIZED)
        if statement.is_select:
            assert len(result.all()) > 0
        session.commit()

    with sessions() as session, pytest.raises(EventRefused, match="purpose"):
        execute(session)
    assert told() == []
    with sessions() as session, acting("support"):
        execute(session)
    assert brief(told()) == events


def test_many_that_are_inserted(sessions: sessionmaker[Session], told: Told) -> None:
    rows = [{"id": number, "email": f"v{number}@example.com", "passport": "P"} for number in (8, 9)]
    with sessions() as session, acting("import"):
        session.execute(insert(Vip), rows)
        session.commit()
        assert brief(told()) == [wrote("insert", "v8", "v9")]


def test_what_is_loaded_later_of_an_object_is_recorded(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session:
        with acting("support"):
            found = session.scalars(select(Customer).where(Customer.id == 1)).one()
        before = len(told())
        assert isinstance(found, Vip)
        with pytest.raises(EventRefused, match="purpose"):
            _ = found.passport
        with acting("dispute"):
            assert found.passport == "P1"
    (event,) = told()[before:]
    assert (event["type"], event["purpose"]) == ("access.read", "dispute")
    assert event["subjects"] == ["vip@example.com"]


def test_what_is_not_watched_is_nobodys_business(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session:
        assert session.scalar(select(Person.email).where(Person.id == 2)) == "person@example.com"
        session.execute(update(Person).where(Person.id == 2).values(email="x"))
        session.scalars(select(Visit)).all()
        session.commit()
    assert told() == []


def test_a_class_that_is_derived_after_the_first_statement(
    sessions: sessionmaker[Session], told: Told, audit: SessionAudit
) -> None:
    class LateBase(DeclarativeBase):
        pass

    class Animal(LateBase):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)
        owner: Mapped[str]

    audit.watch(Animal, subject="owner")
    with sessions() as session, acting("support"):
        LateBase.metadata.create_all(session.connection())
        assert session.scalar(select(func.count(Animal.id))) == 0

    class Horse(Animal):
        __tablename__ = "horses"
        id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)

    with sessions() as session, pytest.raises(EventRefused, match="purpose"):
        session.execute(delete(LateBase.metadata.tables[Horse.__tablename__]))
    assert brief(told()) == [nobody("animals")]
