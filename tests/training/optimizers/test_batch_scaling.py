"""Learning rates for another batch size than the config's."""

import pytest

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import trainer_pb2
from deeplab2_kmax.training.optimizers import SolverSettings


def options(**fields):
    return trainer_pb2.SolverOptions(base_learning_rate=0.5, poly_end_learning_rate=0.1, **fields)


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({}, 1.0),
        ({"learning_rate_reference_batch_size": 8}, 2.0),
        ({"learning_rate_reference_batch_size": 32}, 0.5),
        ({"learning_rate_reference_batch_size": 4, "learning_rate_scaling": "SQUARE_ROOT"}, 2.0),
    ],
)
def test_rates_follow_the_batch_size_where_a_reference_is_given(fields, factor):
    schedule = SolverSettings.from_options(options(**fields), batch_size=16).schedule
    assert schedule.base_learning_rate == pytest.approx(0.5 * factor)
    assert schedule.poly_end_learning_rate == pytest.approx(0.1 * factor)


def test_a_negative_reference_is_refused():
    with pytest.raises(ConfigError, match="learning_rate_reference_batch_size: .*-1"):
        SolverSettings.from_options(options(learning_rate_reference_batch_size=-1), batch_size=16)
