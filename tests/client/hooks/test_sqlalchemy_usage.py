"""The listener and what mapped classes, sessions and statements are used for beyond the plain."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    ForeignKey,
    create_engine,
    delete,
    func,
    lambda_stmt,
    select,
    update,
)
from sqlalchemy import event as sa_event
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    Bundle,
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    joinedload,
    mapped_column,
    relationship,
    scoped_session,
    sessionmaker,
    synonym,
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
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column("mail", unique=True)
    name: Mapped[str] = mapped_column(default="")
    login = synonym("email")


CUSTOMERS = Base.metadata.tables["customers"]


class Shop(Base):
    """Nothing personal in itself."""

    __tablename__ = "shops"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    visits: Mapped[list[Visit]] = relationship(cascade="all, delete-orphan")
    notes: Mapped[list[Note]] = relationship(cascade="all, delete-orphan", back_populates="shop")
    owner = column_property(select(Customer.email).where(Customer.id == 1).scalar_subquery())


class Visit(Base):
    __tablename__ = "visits"
    day: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[str]
    note: Mapped[str] = mapped_column(default="")
    shop_id: Mapped[int | None] = mapped_column(ForeignKey("shops.id"))


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[str]
    shop_id: Mapped[int | None] = mapped_column(ForeignKey("shops.id"))
    shop: Mapped[Shop] = relationship(back_populates="notes")


class Letter(Base):
    """Whom it is about is loaded when somebody asks."""

    __tablename__ = "letters"
    id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[str] = mapped_column(deferred=True)


class Street(Base):
    __tablename__ = "streets"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop_id: Mapped[int] = mapped_column(ForeignKey("shops.id"))
    shop: Mapped[Shop] = relationship()


@pytest.fixture
def audit(shop: Producer) -> SessionAudit:
    made = SessionAudit(shop)
    made.watch(Customer, subject="email")
    made.watch(Visit, subject="who", resource_type="customers")
    made.watch(Note, subject="who", resource_type="customers")
    made.watch(Letter, subject="who", resource_type="customers")
    return made


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        for n in (1, 2, 3):
            visits = [Visit(day=n, place=7, who=f"c{n}@example.com")]
            notes = [Note(who=f"c{n}@example.com")]
            session.add(Customer(id=n, email=f"c{n}@example.com"))
            session.add(Shop(id=n, name="tea", visits=visits, notes=notes))
        session.add_all([Street(shop_id=1), Letter(who="c1@example.com")])
        session.commit()
    return engine


@pytest.fixture
def sessions(engine: Engine, audit: SessionAudit) -> sessionmaker[Session]:
    made = sessionmaker(engine)
    audit.listen(made)
    return made


SEARCH = ("access.search", "select", "success", "customers")


@pytest.mark.parametrize("children", ["visits", "notes"])
def test_an_orphan_is_deleted(sessions: sessionmaker[Session], told: Told, children: str) -> None:
    with sessions() as session, acting("support"):
        found = session.get_one(Shop, 1)
        getattr(found, children).clear()
        session.commit()
    assert [e for e in brief(told()) if e[0] == "access.modify"] == [wrote("delete", "c1")]


@pytest.mark.filterwarnings("ignore:The `objects`")
def test_what_a_flush_leaves_for_later_is_not_recorded_yet(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session, acting("support"):
        changed = session.get_one(Customer, 1)
        changed.name = "x"
        first, later = (Customer(email=f"{name}@example.com") for name in ("n", "m"))
        session.add_all([first, later])
        session.flush([first])
        session.commit()
    events = told()
    assert sorted(brief(events)) == sorted(
        [read("c1"), wrote("insert", "n", "m"), wrote("update", "c1")]
    )
    assert ["customers/None"] not in [row for event in events for row in event["rows"]]
    assert sorted(event["count"] for event in events) == [1, 1, 2]


def test_a_new_identifier_of_an_expired_object_is_about_the_old_one_too(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session, acting("support"):
        changed = session.get_one(Customer, 1)
        session.commit()  # and nobody knows any more who it was
        changed.email = "d1@example.com"
        session.commit()
    assert brief(told())[-1] == wrote("update", "d1", "c1")


MIXED = Shop.name + Customer.email


@pytest.mark.parametrize(
    ("statement", "events"),
    [
        (select(Shop), [SEARCH]),
        (select(Street).options(joinedload(Street.shop)), [SEARCH]),
        (select(Shop.name), []),
        (select(Visit, select(Customer.email).scalar_subquery()), "both"),
        (select(Visit, CUSTOMERS.c.mail).join(Customer, Customer.id == Visit.day), "both"),
        (select(Visit.who, MIXED).where(Customer.id == Visit.day, Shop.id == Visit.day), "both"),
        (select(Visit).join(Customer, Customer.id == Visit.day), [read("c1", "c2", "c3")]),
        (lambda_stmt(lambda: select(Customer)), [read("c1", "c2", "c3")]),
        (select(Bundle("b", Customer.id, Customer.email)), [read("c1", "c2", "c3")]),
        (
            select(Shop.id, Bundle("a", Shop.name, Bundle("b", Customer.email))).where(
                Shop.id == Customer.id
            ),
            [read("c1", "c2", "c3")],
        ),
    ],
)
def test_all_that_comes_out_is_told(
    sessions: sessionmaker[Session], told: Told, statement: Any, events: Any
) -> None:
    with sessions() as session, acting("support"):
        assert session.execute(statement).all()
    both = [SEARCH, read("c1", "c2", "c3")]
    assert brief(told()) == (both if events == "both" else events)


def test_what_an_object_has_from_others_is_not_given_out_for_no_purpose(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session:
        with pytest.raises(EventRefused, match="purpose"):
            session.get(Shop, 1)
        assert not [*session.identity_map.values()]
    assert told() == []


def test_rows_by_a_key_of_two_columns(sessions: sessionmaker[Session], told: Told) -> None:
    with sessions() as session, acting("support"):
        session.execute(update(Visit), [{"day": 1, "place": 7, "note": "x"}])
        session.commit()
    assert brief(told()) == [wrote("update", "c1")]


@pytest.mark.parametrize("how", ["engine", "option"])
def test_autocommit_reads_and_does_not_write(
    engine: Engine, audit: SessionAudit, told: Told, how: str
) -> None:
    if how == "engine":
        bind = create_engine(engine.url, isolation_level="AUTOCOMMIT")
    else:
        bind = engine.execution_options(isolation_level="AUTOCOMMIT")
    with Session(bind) as session, acting("support"):
        audit.listen(session)
        found = session.get_one(Customer, 1)
        for write in (
            lambda: session.execute(delete(Customer)),
            lambda: session.execute(delete(CUSTOMERS)),
            lambda: session.add(Customer(email="x@example.com")),
            lambda: setattr(found, "name", "x"),
            lambda: session.delete(found),
        ):
            with pytest.raises(EventRefused, match="AUTOCOMMIT"):
                write()
                session.flush()
            session.rollback()
            session.add(Shop(name="rum"))
            session.commit()
    with Session(engine) as plain:
        assert {c.name for c in plain.scalars(select(Customer))} == {""}
        assert plain.query(Customer).count() == 3
    assert set(brief(told())) == {read("c1")}


def test_a_subject_that_is_no_column_is_refused(
    sessions: sessionmaker[Session], audit: SessionAudit
) -> None:
    audit.watch(Customer, subject="login")
    refused = pytest.raises(EventRefused, match="subject: Customer has no column attribute 'login'")
    with sessions() as session, acting("support"), refused:
        session.get(Customer, 1)


def upsert(**values: Any) -> Any:
    return sqlite.insert(Customer).values(**values)


@pytest.mark.parametrize(
    ("statement", "given", "whom"),
    [
        (
            upsert(id=1, email="n@example.com").on_conflict_do_update(
                index_elements=["id"], set_={"name": "x"}
            ),
            None,
            ["c1", "n"],
        ),
        (upsert(id=1, email="n@example.com").on_conflict_do_nothing(), None, ["n"]),
        (
            upsert(id=9, email="c2@example.com").on_conflict_do_update(
                index_elements=["mail"], set_={"mail": "m@example.com"}
            ),
            None,
            ["c2", "m"],
        ),
        (
            sqlite.insert(Customer)
            .values([{"id": 1, "email": "n@example.com"}, {"id": 8, "email": "c3@example.com"}])
            .on_conflict_do_update(index_elements=["id"], set_={"name": "x"})
            .on_conflict_do_update(index_elements=["mail"], set_={"name": "y"}),
            None,
            ["c1", "c3", "n"],
        ),
        (
            sqlite.insert(Customer).on_conflict_do_update(
                index_elements=["id"], set_={"name": "x"}
            ),
            [{"id": 1, "email": "n@example.com"}, {"id": 2, "email": "m@example.com"}],
            ["c1", "c2", "n", "m"],
        ),
    ],
)
def test_an_upsert_is_about_those_whom_it_overwrites(
    sessions: sessionmaker[Session], told: Told, statement: Any, given: Any, whom: list[str]
) -> None:
    with sessions() as session, acting("support"):
        session.execute(statement, given)
        session.commit()
    assert brief(told()) == [wrote("insert", *whom)]


@pytest.mark.parametrize("made", ["before", "after"])
def test_who_is_listened_to_twice_is_heard_once(
    engine: Engine, audit: SessionAudit, told: Told, made: str
) -> None:
    class Ours(Session):
        pass

    before = sessionmaker(engine, class_=Ours)
    audit.listen(Ours)
    audit.listen(Ours)
    sessions = before if made == "before" else sessionmaker(engine, class_=Ours)
    with sessions() as session, acting("support"):
        for heard in (sessions, session, session):
            audit.listen(heard)
        session.execute(select(func.count(Customer.id))).all()
        session.execute(update(Customer).where(Customer.id == 1).values(name="x"))
        session.add(Customer(email="n@example.com"))
        session.commit()
    assert brief(told()) == [
        ("access.read", "select", "success", "customers"),
        wrote("update", "c1"),
        wrote("insert", "n"),
    ]
    assert [event["count"] for event in told()] == [1, 1, 1]


@pytest.mark.parametrize("made_by", [None, Session, sessionmaker()])
def test_all_sessions_of_an_asynchronous_sessionmaker(
    engine: Engine, audit: SessionAudit, told: Told, made_by: Any
) -> None:
    async def work() -> None:
        bind = create_async_engine(f"sqlite+aiosqlite:///{engine.url.database}")
        more = {} if made_by is None else {"sync_session_class": made_by}
        sessions = async_sessionmaker(bind, expire_on_commit=False, **more)
        audit.listen(sessions)
        async with sessions.begin() as session:
            with acting("support"):
                found = await session.get_one(Customer, 1)
                found.name = "x"
                await session.flush()
        async with AsyncSession(bind) as unheard:
            await unheard.get(Customer, 2)
        await bind.dispose()

    asyncio.run(work())
    assert brief(told()) == [read("c1"), wrote("update", "c1")]


@pytest.mark.parametrize("how", ["update", "upsert"])
def test_more_rows_than_a_statement_has_parameters(
    engine: Engine, sessions: sessionmaker[Session], told: Told, how: str
) -> None:
    @sa_event.listens_for(engine, "checkout")
    def strict(connection: Any, *_: object) -> None:  # 2,100 of SQL Server, 1,000 of Oracle
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

    rows: list[dict[str, Any]]
    rows = [{"id": n, "email": f"c{n}@example.com", "name": "x"} for n in range(1, 1101)]
    with Session(engine) as plain:
        plain.execute(sqlite.insert(Customer).on_conflict_do_nothing(), rows)
        plain.commit()
    with sessions() as session, acting("support"):
        if how == "update":
            session.execute(update(Customer), [{"id": row["id"], "name": "y"} for row in rows])
        else:
            moved = [{**row, "email": "n" + row["email"]} for row in rows]
            some = sqlite.insert(Customer)
            some = some.on_conflict_do_update(index_elements=["id"], set_={"name": "y"})
            session.execute(some, moved)
        session.commit()
    whom = {name for event in told() for name in event["subjects"]}
    assert whom >= {row["email"] for row in rows}


def test_whom_a_deleted_object_is_about_though_that_was_not_loaded(
    sessions: sessionmaker[Session], told: Told
) -> None:
    with sessions() as session, acting("clean-up"):
        with Session(session.get_bind()) as unheard:
            found = unheard.get_one(Letter, 1)
        session.add(found)
        session.delete(found)
        session.commit()
    assert brief(told())[-1] == wrote("delete", "c1")


def test_each_of_many_scoped_sessions_is_heard_once(
    engine: Engine, audit: SessionAudit, told: Told
) -> None:
    with acting("support"):
        for number in (1, 2):
            maker = sessionmaker(engine)
            session = scoped_session(maker)
            for heard in (session, maker)[: 3 - number]:
                audit.listen(heard)
            session.get(Customer, number)
            session.remove()
    assert brief(told()) == [read("c1"), read("c2")]


def test_an_asynchronous_scoped_session(engine: Engine, audit: SessionAudit, told: Told) -> None:
    async def work() -> None:
        bind = create_async_engine(f"sqlite+aiosqlite:///{engine.url.database}")
        session = async_scoped_session(async_sessionmaker(bind), asyncio.current_task)
        audit.listen(session)
        with acting("support"):
            await session.get(Customer, 1)
        await session.remove()
        await bind.dispose()

    asyncio.run(work())
    assert brief(told()) == [read("c1")]


@pytest.mark.parametrize("seed", range(8))
def test_what_is_recorded_is_what_is_committed(
    engine: Engine, sessions: sessionmaker[Session], told: Told, seed: int
) -> None:
    """Of whatever savepoints, refused rows and rollbacks."""
    sa_event.listen(engine, "connect", lambda c, _: setattr(c, "isolation_level", None))
    sa_event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN"))
    engine.dispose()
    chance = random.Random(seed)
    with sessions() as session, acting("support"):
        for number in range(100, 160):
            nested = session.get_nested_transaction()
            match chance.randrange(9):
                case 0 | 1:
                    session.begin_nested()
                case 2 if nested is not None:
                    nested.commit()
                case 3 if nested is not None:
                    outer = nested.parent
                    (outer if outer is not None and outer.nested else nested).rollback()
                case 4:
                    with pytest.raises(IntegrityError), session.begin_nested():
                        session.add(Customer(id=1, email=f"{number}@example.com"))
                case 5 if not chance.randrange(4):
                    session.rollback()
                case 6 if not chance.randrange(3):
                    session.commit()
                case _:
                    session.add(Customer(id=number, email=f"{number}@example.com"))
                    session.flush()
        session.commit()
    with Session(engine) as plain:
        kept = plain.scalars(select(Customer.email).where(Customer.id >= 100)).all()
    assert sorted(name for event in told() for name in event["subjects"]) == sorted(kept)


def test_a_commit_that_another_listener_stops_leaves_savepoints_what_they_are(
    engine: Engine, audit: SessionAudit, told: Told
) -> None:
    sa_event.listen(engine, "connect", lambda c, _: setattr(c, "isolation_level", None))
    sa_event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN"))
    engine.dispose()
    stops = iter([True])

    def stop(_: Session) -> None:
        if next(stops, False):
            raise RuntimeError

    with Session(engine) as session, acting("support"):
        audit.listen(session)
        sa_event.listen(session, "before_commit", stop)
        session.add(Customer(email="x@example.com"))
        with pytest.raises(RuntimeError):
            session.commit()
        with pytest.raises(RuntimeError), session.begin_nested():
            session.add(Customer(email="lost@example.com"))
            session.flush()
            raise RuntimeError
        with session.begin_nested():
            session.add(Customer(email="kept@example.com"))
        session.commit()
    assert brief(told()) == [wrote("insert", "x"), wrote("insert", "kept")]
