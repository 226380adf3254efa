"""Calls in parallel are answered together, alone at once, and never kept waiting for nobody."""

import asyncio

from tlog.serve.company import Company

FOR_EVER = 3600.0


async def test_a_lone_caller_never_waits() -> None:
    company = Company(FOR_EVER)
    async with asyncio.timeout(5):
        for _ in range(100):
            await company.gather()


async def test_who_comes_in_parallel_is_answered_together() -> None:
    company = Company(FOR_EVER)
    answered: list[int] = []

    async def caller(number: int) -> None:
        for _ in range(20):
            await company.gather()
            answered.append(number)

    async with asyncio.timeout(5):
        # All of them come again each time, so that none ever waits for the clock.
        await asyncio.gather(*(caller(number) for number in range(50)))
    turns = [answered[begin : begin + 50] for begin in range(0, 1000, 50)]
    assert all(sorted(turn) == list(range(50)) for turn in turns)


async def test_company_that_stays_away_is_waited_for_once() -> None:
    company = Company(0.01)
    async with asyncio.timeout(5):
        await asyncio.gather(*(company.gather() for _ in range(50)))
        await company.gather()
    alone = Company(FOR_EVER)
    alone._expected = company._expected
    async with asyncio.timeout(5):
        await alone.gather()


async def test_a_caller_that_goes_away_takes_nobody_along() -> None:
    company = Company(0.01)
    calls = [asyncio.create_task(company.gather()) for _ in range(10)]
    await asyncio.sleep(0)
    calls[0].cancel()
    calls[5].cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in done] == [
        index in (0, 5) for index in range(10)
    ]
