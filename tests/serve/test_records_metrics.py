"""What Prometheus is told of the records of a tenant."""

from __future__ import annotations

from pathlib import Path

from tests.audit.producer import CATALOGUE
from tests.audit.tenant import tenant
from tlog.audit import Draft
from tlog.audit.strays import tell_of_strays
from tlog.serve.records_metrics import RecordsMetrics


async def test_records_of_a_type_that_was_taken_out_are_told(tmp_path: Path) -> None:
    own = CATALOGUE.extended('version = 1\n[types."order.placed"]\nretention = "access"\n')
    async with tenant(tmp_path, catalogue=own) as records:
        await records.record(Draft("order.placed", {}, {"details": "a lamp"}))

        async def told() -> list[float]:
            await tell_of_strays(records, pace=0)
            metrics = {each.name: each for each in RecordsMetrics({"own": records}).collect()}
            return [sample.value for sample in metrics["tlog_records_unknown_type"].samples]

        records.catalogue = CATALOGUE
        assert await told() == [1]
