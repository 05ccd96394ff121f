"""The preprocessing fitted inside every model, so that it can never be forgotten beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.utils import get_tags

if TYPE_CHECKING:
    from airflow_mlops.ml.features import FeatureSchema

_HISTOGRAM_CATEGORIES = 255  # the most that HistGradientBoosting's bins can hold
_TREES = frozenset(
    f"{kind}{task}"
    for kind in ("HistGradientBoosting", "GradientBoosting", "RandomForest", "ExtraTrees", "DecisionTree", "ExtraTree")
    for task in ("Classifier", "Regressor")
)


def is_tree(estimator: BaseEstimator) -> bool:
    """Whether scaling and one-hot columns are of no use to the estimator: trees and ensembles of them."""
    name = type(estimator).__name__
    if name.startswith(("AdaBoost", "Bagging")):
        inner = getattr(estimator, "estimator", None)
        return inner is None or is_tree(inner)
    return type(estimator).__module__.startswith("sklearn.") and name in _TREES


def preprocessor(schema: FeatureSchema, estimator: BaseEstimator) -> ColumnTransformer:
    """The unfitted step before ``estimator``: imputation, encoding and scaling, made of scikit-learn classes only.

    Category columns come first, so that HistGradientBoosting can be told their positions
    (:func:`categorical_positions`). A category unknown at prediction is missing (or −1) to trees and one of the
    infrequent ones, or all zeros, to the others.
    """
    tags = get_tags(estimator).input_tags
    categories = [f.name for f in schema.features if f.kind == "category"]
    numbers = [f.name for f in schema.features if f.kind != "category"]
    impute = SimpleImputer(strategy="median", keep_empty_features=True)
    if is_tree(estimator):
        unknown, missing = (np.nan, np.nan) if tags.allow_nan else (-1, -2)
        encode: Any = OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=unknown, encoded_missing_value=missing
        )
        measure: Any = "passthrough" if tags.allow_nan else impute
    else:
        encode = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=50, sparse_output=tags.sparse)
        # Estimators of counts refuse the negative numbers that standardising makes.
        scale = MinMaxScaler(clip=True) if tags.positive_only else StandardScaler()
        measure = scale if tags.allow_nan else Pipeline([("impute", impute), ("scale", scale)])
    steps = [("category", encode, categories), ("number", measure, numbers)]
    return ColumnTransformer([s for s in steps if s[2]], verbose_feature_names_out=False)


def categorical_positions(schema: FeatureSchema, estimator: BaseEstimator) -> list[int] | None:
    """Positions, after :func:`preprocessor`, of the columns HistGradientBoosting may treat as categories.

    None for other estimators, without such columns, or when ``categorical_features`` was set by the user.
    A column with more categories than bins stays an ordered number.

    """
    if not type(estimator).__name__.startswith("HistGradientBoosting"):
        return None
    params = estimator.get_params()
    if params.get("categorical_features") not in ("from_dtype", None):
        return None
    most = min(_HISTOGRAM_CATEGORIES, int(params.get("max_bins", _HISTOGRAM_CATEGORIES)))
    columns = [f for f in schema.features if f.kind == "category"]
    return [i for i, f in enumerate(columns) if len(f.categories or ()) <= most] or None
