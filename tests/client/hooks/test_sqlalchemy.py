"""The listener in real sessions, before real SQLite files."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    ForeignKey,
    MetaData,
    Table,
    bindparam,
    create_engine,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy import event as sa_event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    joinedload,
    load_only,
    mapped_column,
    relationship,
    selectinload,
    sessionmaker,
)

from tests.audit.tenant import indices, tenant
from tests.client.hooks.conftest import Told
from tests.client.test_producer import Taker
from tlog.audit import EventRefused
from tlog.audit.sdjwt import join
from tlog.audit.search import Query, find
from tlog.client import Producer, SpoolError
from tlog.client.hooks.rows import Fact, batches, named_by
from tlog.client.hooks.sqlalchemy import SessionAudit, acting


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    name: Mapped[str] = mapped_column(default="")
    orders: Mapped[list[Order]] = relationship(back_populates="customer", cascade="all")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    customer: Mapped[Customer] = relationship(back_populates="orders")


class Ticket(Base):
    """It says of itself what it holds."""

    __tablename__ = "tickets"
    __table_args__ = {"info": {"audit": {"subject": "who", "resource_type": "support"}}}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[str]


OTHER = aliased(Customer)


class Product(Base):
    """Nothing personal."""

    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def fill(session: Session, count: int = 3) -> None:
    """Customers a, b, c… with an order each."""
    for number in range(1, count + 1):
        customer = Customer(id=number, email=f"c{number}@example.com")
        session.add(Order(id=number, what="tea", customer=customer))
    session.add_all([Product(id=1, name="tea"), Ticket(id=1, who="c1@example.com")])
    session.commit()


@pytest.fixture
def audit(shop: Producer) -> SessionAudit:
    made = SessionAudit(shop)
    made.personal(subject="email")(Customer)
    made.watch(Order, subject=lambda order: order.customer.email, resource_type="orders")
    return made


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sqlalchemy.Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")

    @sa_event.listens_for(engine, "connect")
    def strict(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.isolation_level = None  # or the driver takes savepoints for transactions

    @sa_event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        fill(session)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: sqlalchemy.Engine, audit: SessionAudit) -> sessionmaker[Session]:
    made = sessionmaker(engine)
    audit.listen(made)
    return made


def brief(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Type, action, outcome, what, whom."""
    return [
        (e["type"], e["action"], e["outcome"], e["resource_type"], *e["subjects"]) for e in events
    ]


def read(*subjects: str, what: str = "customers") -> tuple[Any, ...]:
    return ("access.read", "select", "success", what, *[f"{s}@example.com" for s in subjects])


def wrote(action: str, *subjects: str, outcome: str = "success") -> tuple[Any, ...]:
    return (
        "access.modify",
        action,
        outcome,
        "customers",
        *[f"{s}@example.com" for s in subjects],
    )


# ---- reading ----


def test_one_event_for_a_query_with_all_that_is_said(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session, acting("support", actor={"id": "eve"}, request_id="R-1"):
        assert len(session.scalars(select(Customer)).all()) == 3
    (event,) = told()
    assert (
        event.items()
        >= {
            "purpose": "support",
            "actor": {"id": "eve"},
            "request_id": "R-1",
            "count": 3,
            "rows": [["customers/1"], ["customers/2"], ["customers/3"]],
            "subjects": [f"c{n}@example.com" for n in (1, 2, 3)],
        }.items()
    )


def test_it_is_on_the_disk_before_the_application_has_it(
    sessions: sessionmaker[Session], shop: Producer
) -> None:
    with sessions() as session, acting("support"):
        result = session.scalars(select(Customer))
        before = shop.record("access.search", purpose="support").seq
        next(result)
        assert shop.record("access.search", purpose="support").seq == before + 2


@pytest.mark.parametrize(
    ("query", "events"),
    [
        (lambda s: s.get(Customer, 2), [read("c2")]),
        (lambda s: s.get(Customer, 9), []),
        (lambda s: s.query(Customer).filter_by(id=1).all(), [read("c1")]),
        (
            lambda s: s.execute(select(Customer, Product).where(Product.id == Customer.id)).all(),
            [read("c1")],
        ),
        (lambda s: s.scalars(select(Product)).all(), []),
        (lambda s: s.execute(select(Customer.name)).all(), [read()]),
        (
            lambda s: s.execute(select(Customer.name, Customer.email)).all(),
            [read("c1", "c2", "c3")],
        ),
        (lambda s: s.scalars(select(aliased(Customer).email)).all(), [read("c1", "c2", "c3")]),
        (
            lambda s: s.execute(select(Customer.name, Customer.email.label("mail"))).all(),
            [read("c1", "c2", "c3")],
        ),
        (
            lambda s: s.execute(
                select(Customer.email, OTHER.email).join(OTHER, OTHER.id == Customer.id + 1)
            ).all(),
            [read("c1", "c2", "c3")],
        ),
        (lambda s: s.scalars(select(aliased(Customer))).all(), [read("c1", "c2", "c3")]),
        (
            lambda s: s.scalars(select(Customer).options(load_only(Customer.name))).all(),
            [read(s) for s in ("c1", "c2", "c3")] + [read("c1", "c2", "c3")],
        ),
        (
            lambda s: s.scalars(select(Customer).options(selectinload(Customer.orders))).all(),
            [read("c1", "c2", "c3"), read("c1", "c2", "c3", what="orders")],
        ),
        (
            lambda s: s.scalars(select(Order).options(joinedload(Order.customer))).unique().all(),
            [read("c1", "c2", "c3", what="orders"), read("c1", "c2", "c3")],
        ),
        (lambda s: s.get(Customer, 1).orders, [read("c1"), read("c1", what="orders")]),
        (lambda s: s.scalars(select(Ticket)).all(), [read("c1", what="support")]),
        (
            lambda s: s.scalars(
                select(Customer).from_statement(text("SELECT * FROM customers WHERE id = 1"))
            ).all(),
            [read("c1")],
        ),
    ],
)
def test_all_that_is_given_out(
    sessions: sessionmaker[Session], told: Told, query: Any, events: list[Any]
) -> None:
    with sessions() as session, acting("support"):
        query(session)
    found = brief(told())
    assert sorted(found) == sorted(events)


@pytest.mark.parametrize(
    "statement",
    [
        select(func.count()).select_from(Customer),
        select(Customer.__table__),
        select(Product).where(select(Customer.id).where(Customer.email == "x").exists()),
    ],
)
def test_who_looks_through_it_is_recorded(
    sessions: sessionmaker[Session], told: Told, statement: Any
) -> None:
    with sessions() as session:
        with pytest.raises(EventRefused):
            session.execute(statement)
        with acting("statistics"):
            session.execute(statement).all()
    assert brief(told()) == [("access.search", "select", "success", "customers")]


def test_what_was_in_memory_is_recorded_when_it_is_asked_for_again(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session, acting("support"):
        first = session.get(Customer, 1)
        assert session.get(Customer, 1) is first  # no statement
        session.scalars(select(Customer).where(Customer.id == 1)).all()
        session.refresh(first)
    assert brief(told()) == [read("c1")] * 3


def test_64_subjects_in_an_event(
    sessions: sessionmaker[Session], engine: sqlalchemy.Engine, told: Told
) -> None:
    with Session(engine) as session:
        more = [Customer(id=n, email=f"c{n}@example.com") for n in range(4, 131)]
        session.add_all(more)
        session.commit()
    with sessions() as session, acting("support"):
        assert len(session.scalars(select(Customer)).all()) == 130
    events = told()
    assert [event["count"] for event in events] == [64, 64, 2]
    names = [name for event in events for name in event["subjects"]]
    assert sorted(names) == sorted(f"c{n}@example.com" for n in range(1, 131))


def test_64_rows_in_an_event(
    sessions: sessionmaker[Session], engine: sqlalchemy.Engine, told: Told
) -> None:
    with Session(engine) as session:
        session.add_all([Order(id=n, what="rum", customer_id=1) for n in range(4, 131)])
        session.commit()
    with sessions() as session, acting("support"):
        session.scalars(select(Order).options(joinedload(Order.customer))).all()
    events = [event for event in told() if event["resource_type"] == "orders"]
    assert [event["count"] for event in events] == [64, 64, 2]
    named = [row for event in events for rows in event["rows"] for row in rows]
    assert sorted(named) == sorted(f"orders/{n}" for n in range(1, 131))


async def test_what_it_records_is_found_by_each_row(
    sessions: sessionmaker[Session], told: Told, taker: Taker, tmp_path: Path
) -> None:
    with sessions() as session, acting("support"):
        session.scalars(select(Customer)).all()
        session.add(Customer(id=4, email="c4@example.com"))
        session.commit()
    assert len(told()) == 2
    sent = [
        join(event.jws.text, [d.encoded for part in (event.shared, *event.subjects) for d in part])
        for event in taker.events
    ]
    (tmp_path / "tenant").mkdir()
    async with tenant(tmp_path / "tenant") as records:
        read_, written = indices(await records.accept(sent))
        for row, index in (
            ("customers/1", read_),
            ("customers/3", read_),
            ("customers/4", written),
        ):
            places, _ = await find(records, Query(resource=row), limit=9)
            assert [found for _, found in places] == [index]


@given(
    st.lists(
        st.builds(
            Fact,
            st.lists(st.integers(0, 99).map(str), max_size=2, unique=True).map(tuple),
            st.sampled_from(["", *[f"rows/{n}" for n in range(99)]]),
        ),
        max_size=300,
    )
)
def test_as_many_events_as_it_takes_lose_nothing(facts: list[Fact]) -> None:
    told: Counter[tuple[str, str]] = Counter()
    names: set[str] = set()
    made = list(batches(facts))
    assert sum(map(len, made)) == len(facts)
    for batch in made:
        subjects, nobodys = named_by(batch)
        rows = [(each["id"], row) for each in subjects for row in each.get("resource", [])]
        assert batch
        assert max(len(subjects), len(rows) + len(nobodys)) <= 64
        assert not (subjects and nobodys)
        names |= {each["id"] for each in subjects}
        told += Counter([*rows, *[("", row) for row in nobodys]])
    assert names == {name for fact in facts for name in fact.subjects}
    assert told == Counter(
        (name, fact.resource) for fact in facts if fact.resource for name in fact.subjects or [""]
    )


def test_a_streamed_result_is_recorded_as_it_comes(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session, acting("support"):
        result = session.scalars(select(Customer).execution_options(yield_per=2))
        next(result)
        assert brief(told()) == [read("c1", "c2")]
        assert len(result.all()) == 2
    assert brief(told()) == [read("c1", "c2"), read("c3")]


def test_results_behave_as_without_it(sessions: sessionmaker[Session]) -> None:
    with sessions() as session, acting("support"):
        query = select(Customer).options(joinedload(Customer.orders))
        with pytest.raises(sqlalchemy.exc.InvalidRequestError, match="unique"):
            session.scalars(query).all()
        assert len(session.scalars(query).unique().all()) == 3
        assert len(session.scalars(select(Customer)).fetchmany(2)) == 2
        parts = session.scalars(select(Customer)).yield_per(2).partitions()
        assert [len(part) for part in parts] == [2, 1]
        assert session.scalars(select(Customer.id)).first() == 1
        assert session.execute(select(Customer).where(Customer.id == 2)).scalar_one().id == 2
        assert session.query(Customer).count() == 3


def test_no_purpose_no_data(sessions: sessionmaker[Session], told: Told) -> None:
    with sessions() as session:
        for query in (select(Customer), select(Customer.name), select(Ticket)):
            with pytest.raises(EventRefused, match="purpose: personal data is read or written"):
                session.execute(query)
        assert session.scalars(select(Product)).all()
        with acting("support"):
            first = session.get(Customer, 1)
        assert first is not None
        with pytest.raises(EventRefused):
            _ = first.orders
    assert brief(told()) == [read("c1")]


def test_a_purpose_for_those_who_name_none(
    engine: sqlalchemy.Engine, shop: Producer, told: Told
) -> None:
    audit = SessionAudit(shop, otherwise={"purpose": "night job"})
    audit.watch(Customer, subject="email")
    with Session(engine) as session:
        audit.listen(session)
        session.get(Customer, 1)
        with acting("support"):
            session.get(Customer, 2)
    assert [event["purpose"] for event in told()] == ["night job", "support"]


def test_what_cannot_be_recorded_is_not_given_out(
    sessions: sessionmaker[Session], shop: Producer, told: Told
) -> None:
    with sessions() as session:
        with acting("alice@example.com"), pytest.raises(EventRefused, match="purpose"):
            session.scalars(select(Customer)).all()
        with acting("support"):
            result = session.scalars(select(Customer))
            assert told() == []
            shop.close()
            with pytest.raises(SpoolError):
                result.all()
            with pytest.raises(SpoolError):
                session.scalars(select(Customer))


@pytest.mark.parametrize("how", ["refused", "broken"])
def test_what_was_not_recorded_is_not_in_memory(
    sessions: sessionmaker[Session], told: Told, how: str
) -> None:
    """Nor is it given out to whoever asks again."""
    nested = select(Customer).options(selectinload(Customer.orders))
    with sessions() as session, acting("mail y@example.com" if how == "refused" else "support"):
        known = session.get(Product, 1)

        def broken(asked: Any) -> None:
            if how == "broken" and asked.is_relationship_load:
                raise EventRefused("no")

        sa_event.listen(session, "do_orm_execute", broken)
        for _ in range(2):
            with pytest.raises(EventRefused):
                session.scalars(nested).all()
            assert [*session.identity_map.values()] == [known]
    assert told() == []


def test_threads_have_purposes_of_their_own(sessions: sessionmaker[Session], told: Told) -> None:
    def work(purpose: str) -> None:
        for _ in range(5):
            with sessions() as session, acting(purpose):
                session.get(Customer, 1)

    threads = [threading.Thread(target=work, args=(f"p{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(event["purpose"] for event in told()) == sorted(["p0", "p1", "p2", "p3"] * 5)


# ---- writing ----


def test_writes_are_recorded_when_they_are_committed(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session, acting("support", request_id="R-1"):
        session.add(Customer(email="new@example.com"))
        session.flush()
        assert told() == []
        changed = session.get(Customer, 1)
        assert changed is not None
        changed.name = "Alice"
        gone = session.get(Customer, 3)
        session.delete(gone)
        session.add(Product(id=2, name="rum"))
        session.commit()
    events = [event for event in told() if event["type"] == "access.modify"]
    assert brief(events)[:1] == [wrote("insert", "new")]
    assert wrote("update", "c1") in brief(events)
    assert wrote("delete", "c3") in brief(events)
    (update_,) = [event for event in events if event["action"] == "update"]
    assert update_["details"] == {"attributes": ["name"]}
    assert {event["request_id"] for event in events} == {"R-1"}
    assert events[0]["rows"] == [["customers/4"]]


def test_a_new_identifier_is_about_the_old_one_too(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session, acting("support"):
        changed = session.get(Customer, 1)
        assert changed is not None
        changed.email = "d1@example.com"
        session.commit()
    assert brief(told()) == [read("c1"), wrote("update", "d1", "c1")]


def test_what_is_rolled_back_is_no_write(sessions: sessionmaker[Session], told: Told) -> None:
    with sessions() as session, acting("support"):
        session.add(Customer(email="x@example.com"))
        session.flush()
        session.rollback()
        session.add(Customer(email="y@example.com"))
        session.flush()
    with sessions() as session, acting("support"), pytest.raises(RuntimeError), session.begin():
        session.add(Customer(email="z@example.com"))
        session.flush()
        raise RuntimeError
    with sessions() as session, acting("support"):
        session.add(Customer(id=1, email="twice@example.com"))
        with pytest.raises(IntegrityError):
            session.commit()
    assert told() == []


def test_savepoints(sessions: sessionmaker[Session], told: Told) -> None:
    with sessions() as session, acting("support"):
        session.add(Customer(email="outer@example.com"))
        with session.begin_nested():
            session.add(Customer(email="kept@example.com"))
            with pytest.raises(RuntimeError), session.begin_nested():
                session.add(Customer(email="lost@example.com"))
                session.flush()
                raise RuntimeError
        first = session.begin_nested()
        with session.begin_nested():
            session.add(Customer(email="inner@example.com"))
        first.rollback()
        closed = session.begin_nested()
        session.add(Customer(email="closed@example.com"))
        session.flush()
        closed.close()
        assert told() == []
        session.commit()
        session.add(Customer(email="later@example.com"))
        session.commit()
    assert brief(told()) == [wrote("insert", "outer", "kept"), wrote("insert", "later")]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_commit_around_open_savepoints_is_recorded(
    sessions: sessionmaker[Session],
    told: Told,
    shop: Producer,
    engine: sqlalchemy.Engine,
    depth: int,
) -> None:
    """SQLAlchemy tells of it as of the commit of the innermost one."""
    with acting("support"):
        with sessions.begin() as session:
            session.add(Customer(email="outer@example.com"))
            for number in range(depth):
                session.begin_nested()
                session.add(Customer(email=f"x{number}@example.com"))
        with sessions() as session:
            outer = session.begin_nested()
            session.add(Customer(email="lost@example.com"))
            session.begin_nested()
            outer.commit()
            session.rollback()
        assert brief(told()) == [wrote("insert", "outer", *[f"x{n}" for n in range(depth)])]
        with pytest.raises(SpoolError), sessions.begin() as session:
            session.begin_nested()
            session.add(Customer(email="y@example.com"))
            session.flush()
            shop.close()
    with Session(engine) as plain:
        assert plain.query(Customer).count() == 4 + depth


def test_a_commit_that_is_not_recorded_is_not_made(
    sessions: sessionmaker[Session], shop: Producer, engine: sqlalchemy.Engine
) -> None:
    with sessions() as session, acting("support"):
        session.add(Customer(email="x@example.com"))
        session.flush()
        shop.close()
        with pytest.raises(SpoolError):
            session.commit()
    with Session(engine) as plain:
        assert plain.query(Customer).count() == 3


def test_a_connection_that_outlives_its_sessions_hears_of_none(
    engine: sqlalchemy.Engine, audit: SessionAudit, told: Told
) -> None:
    with engine.connect() as connection, acting("support"):
        for number in range(3):
            with Session(connection) as session:
                audit.listen(session)
                session.add(Customer(email=f"x{number}@example.com"))
                (session.rollback, session.commit)[number % 2]()
                session.get(Product, 1)
        assert not [*connection.dispatch.commit, *connection.dispatch.prepare_twophase]
    assert brief(told()) == [wrote("insert", "x1")]


@pytest.mark.parametrize("again", [True, False])
def test_a_commit_of_which_a_part_is_not_recorded(
    sessions: sessionmaker[Session], engine: sqlalchemy.Engine, told: Told, *, again: bool
) -> None:
    """It is not made, however often it is tried; what was recorded of it is told to be unknown."""
    with sessions() as session:
        with acting("support"):
            session.add(Customer(email="x@example.com"))
            session.flush()
        with acting("mail to y@example.com"):
            session.add(Customer(email="y@example.com"))
            for _ in range(1 + again):
                with pytest.raises(EventRefused, match="e-mail"):
                    session.commit()
    with Session(engine) as plain:
        assert plain.query(Customer).count() == 3
    assert brief(told()) == [wrote("insert", "x"), wrote("insert", "x", outcome="unknown")]


def test_a_commit_that_is_tried_again_is_recorded(
    sessions: sessionmaker[Session], told: Told, shop: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sessions() as session, acting("support"):
        session.add(Customer(email="x@example.com"))
        session.flush()
        with monkeypatch.context() as full:
            full.setattr(shop.spool, "max_bytes", 0)
            with pytest.raises(SpoolError, match="full"):
                session.commit()
        session.commit()
    assert brief(told()) == [wrote("insert", "x")]


def test_a_write_without_a_purpose_is_not_flushed(
    sessions: sessionmaker[Session], engine: sqlalchemy.Engine, told: Told
) -> None:
    with sessions() as session:
        session.add(Customer(email="x@example.com"))
        with pytest.raises(EventRefused):
            session.commit()
    with Session(engine) as plain:
        assert plain.query(Customer).count() == 3
    assert told() == []


def test_a_commit_that_fails_is_told(
    sessions: sessionmaker[Session], engine: sqlalchemy.Engine, told: Told
) -> None:
    """A deferred constraint is checked by the commit itself."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE notes (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES "
                "customers DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    with sessions() as session, acting("support"):
        session.add(Customer(email="x@example.com"))
        session.execute(text("INSERT INTO notes VALUES (1, 99)"))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.add(Customer(email="y@example.com"))
        session.commit()
    assert brief(told()) == [
        wrote("insert", "x"),
        wrote("insert", "x", outcome="unknown"),
        wrote("insert", "y"),
    ]


def test_who_flushes_while_it_commits_is_recorded(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session, acting("support"):
        once = iter([True])

        @sa_event.listens_for(session, "before_commit")
        def late(session: Session) -> None:
            if next(once, False):
                session.add(Customer(email="late@example.com"))

        session.add(Customer(email="x@example.com"))
        session.commit()
    assert brief(told()) == [wrote("insert", "x"), wrote("insert", "late")]


@pytest.mark.parametrize(
    ("statement", "given", "events"),
    [
        (
            update(Customer).where(Customer.id < 3).values(name="x"),
            None,
            [wrote("update", "c1", "c2")],
        ),
        (update(Customer).values(name="x"), None, [wrote("update", "c1", "c2", "c3")]),
        (
            update(Customer),
            [{"id": 2, "name": "x"}, {"id": 3, "name": "y"}],
            [wrote("update", "c2", "c3")],
        ),
        (
            delete(Order).where(Order.id == 1),
            None,
            [("access.modify", "delete", "success", "orders")],
        ),
        (insert(Customer).values(email="n@example.com"), None, [wrote("insert", "n")]),
        (
            insert(Customer).values([{"email": "n@example.com"}, {"email": "m@example.com"}]),
            None,
            [wrote("insert", "n", "m")],
        ),
        (
            insert(Customer),
            [{"email": "n@example.com"}, {"email": "m@example.com"}],
            [wrote("insert", "n", "m")],
        ),
        (
            insert(Base.metadata.tables["customers"]).values(email="n@example.com"),
            None,
            [wrote("insert")],
        ),
        (insert(Product).values(name="rum"), None, []),
        (
            delete(Product).where(Product.name.in_(select(Customer.name))),
            None,
            [],
        ),
        (
            insert(Customer).values(email="n@example.com").returning(Customer),
            None,
            [wrote("insert", "n")],
        ),
        (
            insert(Customer).returning(Customer.email),
            [{"email": "n@example.com"}],
            [wrote("insert", "n")],
        ),
        (
            update(Customer)
            .where(Customer.id == 1)
            .values(email="n@example.com")
            .returning(Customer.email),
            None,
            [wrote("update", "c1", "n")],
        ),
        (
            update(Customer).where(Customer.id == bindparam("b")).values(email="n@example.com"),
            {"b": 1},
            [wrote("update", "c1", "n")],
        ),
        (
            update(Customer),
            [{"id": 2, "email": "n@example.com"}, {"id": 3, "name": "y"}],
            [wrote("update", "c2", "c3", "n")],
        ),
    ],
)
def test_statements_on_many_rows(
    sessions: sessionmaker[Session], told: Told, statement: Any, given: Any, events: list[Any]
) -> None:
    def execute(session: Session) -> None:
        result = session.execute(statement, given)
        if statement._returning:
            assert result.all()

    with sessions() as session, acting("clean-up"):
        execute(session)
        session.rollback()
        assert [e for e in brief(told()) if e[0] == "access.modify"] == []
        execute(session)
        session.commit()
    found = brief(told())
    assert [e for e in found if e[0] == "access.modify"] == events
    reads = [e for e in found if e[0] == "access.read"]
    assert reads == ([read("n")] * 2 if statement._returning else [])


def test_a_table_that_is_mapped_by_nobody_says_of_itself_too(
    sessions: sessionmaker[Session], told: Told, engine: sqlalchemy.Engine
) -> None:
    tickets = Table("tickets", MetaData(), autoload_with=engine)
    tickets.info["audit"] = {"subject": "who"}
    with sessions() as session, acting("support"):
        session.execute(select(tickets)).all()
        session.execute(delete(tickets))
        session.commit()
    assert [e[:4] for e in brief(told())] == [
        ("access.search", "select", "success", "tickets"),
        ("access.modify", "delete", "success", "tickets"),
    ]


# ---- asynchronous sessions ----


def test_asynchronous_sessions(tmp_path: Path, audit: SessionAudit, told: Told) -> None:
    async def work() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'async.db'}")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            audit.listen(session)
            with pytest.raises(EventRefused):
                await session.get(Customer, 1)
            with acting("support"):
                await session.run_sync(fill, 2)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(asyncio.sleep(0))
                streamed = await session.stream_scalars(
                    select(Customer).execution_options(yield_per=1)
                )
                assert [each.id async for each in streamed] == [1, 2]
                session.add(Customer(id=3, email="c3@example.com"))
                await session.rollback()
                await session.execute(delete(Order))
                await session.commit()
        await engine.dispose()

    asyncio.run(work())
    found = [e for e in brief(told()) if e[3] == "customers"]
    assert found == [wrote("insert", "c1", "c2"), read("c1"), read("c2")]
    gc.collect()


def test_two_tasks_have_purposes_of_their_own(
    tmp_path: Path, audit: SessionAudit, told: Told
) -> None:
    async def work() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'async.db'}")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            await session.run_sync(fill, 2)

        async def one(purpose: str) -> None:
            async with AsyncSession(engine) as session:
                audit.listen(session)
                with acting(purpose):
                    for _ in range(3):
                        await session.scalars(select(Customer))

        await asyncio.gather(one("a"), one("b"))
        await engine.dispose()

    asyncio.run(work())
    assert sorted(event["purpose"] for event in told()) == ["a"] * 3 + ["b"] * 3
