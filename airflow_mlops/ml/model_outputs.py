"""What a model says of rows, as Arrow columns of fixed names and types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline

from airflow_mlops.exceptions import PredictionError
from airflow_mlops.ml.features import FeatureSchema, plain
from airflow_mlops.ml.outputs import PREDICTION, PROBABILITY, SCORE, VERSION
from airflow_mlops.ml.privacy import cause, told


class Outputs:
    """Asks the model and gives Arrow columns of fixed names and types.

    :param few: the model may know only some of the schema's classes; the others have probability 0.
    :raises PredictionError: it does not know the schema's classes.
    """

    def __init__(self, model: Any, schema: FeatureSchema, *, few: bool = False) -> None:
        self._model, self._private = model, schema.private
        classes = None if schema.classes is None else [plain(c) for c in schema.classes]
        self._classes = classes
        self._method: str | None = None
        self.names: list[str] = []
        self._type: pa.DataType = pa.float64()
        if classes is None:
            return
        self._type = pa.infer_type(classes)
        known = [plain(c) for c in getattr(model, "classes_", classes)]
        self._known = known
        if any(c not in classes for c in known) if few else any(c not in known for c in classes):
            raise PredictionError(
                f"the model knows the classes {known!r}, its schema names {classes!r}",
                hint="model and schema do not belong together; take both from one version",
            )
        self._wanted = (
            [schema.positive if schema.positive is not None else classes[-1]] if len(classes) == 2 else classes
        )
        if hasattr(model, "predict_proba"):
            self._method = "predict_proba"
            self.names = [PROBABILITY] if len(classes) == 2 else [f"{PROBABILITY}_{c}" for c in classes]
        elif hasattr(model, "decision_function") and len(classes) == 2:
            self._method, self.names = "decision_function", [SCORE]

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Name and type of the columns that :meth:`of` gives."""
        return {PREDICTION: self._type, **dict.fromkeys(self.names, pa.float64())}

    def check_names(self, read: Iterable[str]) -> None:
        """Refuse columns that are both read and written.

        :raises PredictionError: there are some.
        """
        if taken := {*self.columns, VERSION} & {*read}:
            raise PredictionError(
                f"the columns {', '.join(sorted(taken))} would be both read and written",
                hint="rename them in the data or in features.callable",
            )

    def of(self, inputs: pd.DataFrame | np.ndarray) -> dict[str, pa.Array]:
        """What the model says of rows, as the columns ``prediction`` and :attr:`names`.

        :raises PredictionError: it fails, or gives NaN.
        """
        said = None if self._method is None else self._finite(self._method, self._ask(self._method, inputs))
        if said is not None and likeliest(self._model):
            columns = {PREDICTION: pa.array(self._known, self._type).take(pa.array(said.argmax(axis=1)))}
        else:
            columns = {PREDICTION: self._labels(self._ask("predict", inputs))}
        if said is None:
            return columns
        if self._method == "decision_function":
            columns[SCORE] = pa.array(said if self._known[1] == self._wanted[0] else -said)
            return columns
        for name, wanted in zip(self.names, self._wanted, strict=True):
            known = wanted in self._known
            columns[name] = pa.array(said[:, self._known.index(wanted)] if known else np.zeros(len(said)))
        return columns

    def _labels(self, values: np.ndarray) -> pa.Array:
        if self._classes is None:
            return pa.array(self._finite("predict", values), pa.float64())
        codes, labels = pd.factorize(values)
        return pa.array([plain(v) for v in labels], self._type).take(pa.array(codes))

    def _ask(self, method: str, inputs: pd.DataFrame | np.ndarray) -> np.ndarray:
        try:
            values = np.asarray(getattr(self._model, method)(inputs))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as e:
            raise PredictionError(
                f"the model's {method} failed on {len(inputs):,} rows: {told(e, self._private)}",
                hint="load this version in a notebook and predict these rows",
            ) from cause(e, self._private)
        if len(values) != len(inputs):
            raise PredictionError(f"the model's {method} gave {len(values):,} results for {len(inputs):,} rows")
        return values

    @staticmethod
    def _finite(method: str, values: np.ndarray) -> np.ndarray:
        numbers = values.astype(np.float64)
        if bad := int((~np.isfinite(numbers)).sum()):
            raise PredictionError(
                f"the model's {method} gave {bad:,} values that are NaN or infinite, for {len(numbers):,} rows",
                hint="look for inputs of extreme size",
            )
        return numbers


def likeliest(model: Any) -> bool:
    """Whether ``predict`` is the likeliest class of ``predict_proba``, so that asking twice is waste.

    Known of these classes only; others may apply a threshold of their own.
    """
    final = model.steps[-1][1] if isinstance(model, Pipeline) else model
    return type(final) in (HistGradientBoostingClassifier, RandomForestClassifier, ExtraTreesClassifier)
