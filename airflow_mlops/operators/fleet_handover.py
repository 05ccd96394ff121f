"""A fleet's handover: promote, and write the champions of all keys as one bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.links.reports import HandoverBundleLink
from airflow_mlops.operators.base import RunScope
from airflow_mlops.operators.fleet import FleetPromoteOperator

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context


class FleetHandoverOperator(FleetPromoteOperator):
    """Promote, and hand the champions of all keys over as one bundle that needs neither Airflow nor this package.

    Returns what :class:`FleetPromoteOperator` returns and ``bundle`` (digest), ``uri``, ``models``, ``command``.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (HandoverBundleLink(),)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Promote, write the bundle, link it."""
        from airflow_mlops.links.reports import file_url, persist_report
        from airflow_mlops.ml.fleet.handover import make_fleet_bundle
        from airflow_mlops.ml.fleet.result import read_run, save_result
        from airflow_mlops.store import layout

        done = super().work(scope, context)
        store, dag_id, run = self.hook.store(), context["ti"].dag_id, self.decision["run"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{self.pipeline}.zip"
            made = make_fleet_bundle(
                store,
                self.hook.registry(self.pipeline),
                path,
                verifier=self.hook.verifier(),
                allowed_imports=self.hook.allowed_imports,
            )
            key = layout.handover(dag_id, made.digest)
            store.put_file(key, path)
        # What a record names is kept.
        save_result(store, self.pipeline, run, read_run(store, self.pipeline, run) | {"bundle": made.digest})
        persist_report(context, "Handover bundle", file_url(dag_id, made.digest))
        uri = f"{store.uri.rstrip('/')}/{key}"
        self.log.info("Handover bundle of %s models: %s", f"{made.models:,}", uri)
        self.log.info("To use it anywhere: unzip it, pip install -r requirements.txt, then: %s", made.command)
        return {**done, "bundle": made.digest, "uri": uri, "models": made.models, "command": made.command}
